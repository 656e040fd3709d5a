"""Probes, signals, conditions and lengths from policy and lock to numbers, and what does not fit."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from monitor.policy.files.diagnostics import validate
from monitor.policy.files.loader import load_policies, set_digest
from monitor.policy.files.lock import LockModel, write_lock
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.probe_weights import probe_path
from monitor.policy.files.source import Running, read_source
from monitor.policy.files.yaml_document import PolicyProblems, read_document
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.threshold import LengthThreshold, threshold_at
from tests.policy.files.resolved import WEIGHTS, WIDTH, relocked, resolved, with_probe
from tests.policy.policy_files import (
    CONCEPT,
    DICTIONARY,
    EXAMPLES,
    MODEL,
    PAIR,
    PINNED,
    lock_for,
    write_policy,
)


@pytest.mark.parametrize("size", [WIDTH, 2048])
def test_a_probe_comes_from_the_lock_inline_or_from_its_file(tmp_path, size):
    weights = np.resize(np.asarray(WEIGHTS, np.float32), size)
    path = with_probe(tmp_path, weights)
    file = probe_path(lock_path(path, PAIR))
    assert file.exists() == (size > 1024)
    policy, problems = resolved(path, Running(MODEL, DICTIONARY, 100, width=size))
    assert not problems
    (rule,) = policy.rules
    assert (rule.features, rule.probe.name, rule.probe.bias, rule.probe.scale) == ((), "greed", -0.5, 2.0)
    np.testing.assert_allclose(rule.probe.weights, weights, rtol=1e-5)
    assert PolicySet((policy,), "").watch.probes == (rule.probe,)
    source = read_source(path, PAIR)
    assert (file in source.files) == (size > 1024)
    without = replace(source, files=tuple(one for one in source.files if one != file))
    assert (set_digest([source]) != set_digest([without])) == (size > 1024)


def test_a_probe_file_that_is_not_the_one_is_refused(tmp_path):
    path = with_probe(tmp_path, np.resize(np.asarray(WEIGHTS, np.float32), 2048))
    file = probe_path(lock_path(path, PAIR))
    good = file.read_bytes()
    for content, word in ((good + b"\0", "digest"), (b"", "digest"), (None, "cannot be read")):
        file.unlink() if content is None else file.write_bytes(content)
        with pytest.raises(PolicyProblems, match=word) as caught:
            read_source(path, PAIR)
        assert caught.value.problems[0].file.endswith(".lock.yaml")


def test_thresholds_by_length_come_from_the_lock(tmp_path):
    path = write_policy(tmp_path, CONCEPT)
    lock = lock_for(EXAMPLES).model_dump(by_alias=True)
    lock["rules"]["stated"]["threshold"] = [
        {"up_to": 16, "threshold": 0.5},
        {"up_to": None, "threshold": 0.25},
    ]
    write_lock(path, LockModel.model_validate(lock), PAIR)
    again = validate(read_document(lock_path(path, PAIR)), LockModel)
    assert again.rules["stated"].threshold == [
        LengthThreshold(up_to=16, threshold=0.5),
        LengthThreshold(up_to=None, threshold=0.25),
    ]
    policy, problems = resolved(path)
    assert not problems
    assert (policy.rules[0].lengths, policy.rules[0].threshold) == (((16, 0.5), (None, 0.25)), 0.25)
    assert [threshold_at(again.rules["stated"].threshold, n) for n in (1, 16, 17)] == [0.5, 0.5, 0.25]


def test_features_of_conditions_must_exist(tmp_path):
    head = PINNED.split("features:\n")[0]
    condition = "conditions:\n  a: {features: [{index: 700}], threshold: 1}\n"
    path = write_policy(tmp_path, head + condition + "rules:\n  - name: r\n    when: a\n")
    (problem,) = resolved(path)[1]
    assert (problem.line, "700 does not exist" in problem.message) == (9, True)


def test_policies_of_other_models_are_left_out(tmp_path):
    write_policy(tmp_path, PINNED + "match: {models: ['other*']}\n")
    write_policy(tmp_path, PINNED.replace("name: greed", "name: envy"), "envy")

    def load(*names):
        return load_policies(
            tmp_path, dictionary_digest=DICTIONARY, model_digest=MODEL, features=100, names=names
        )

    assert [p.name for p in load("mine").policies] == ["envy"]
    assert [p.name for p in load("mine", "other-7b").policies] == ["envy", "greed"]
    assert load("mine").digest != load("other-7b").digest
    (tmp_path / "envy.yaml").unlink()
    with pytest.raises(PolicyProblems, match=r"no policy applies to the model mine"):
        load("mine")


EXPLAIN = [
    {"index": 8, "weight": 0.75, "maximum": 2.0, "label": "wants"},
    {"index": 9, "weight": 0.5, "maximum": 1.0},
]


def test_a_learnt_probe_brings_the_features_that_explain_it(tmp_path):
    path = with_probe(tmp_path)
    probe = {"weights": WEIGHTS, "bias": -0.5, "scale": 2.0}
    write_lock(path, relocked(detector="probe", probe=probe, explain=EXPLAIN), PAIR)
    policy, problems = resolved(path)
    assert not problems
    (rule,) = policy.rules
    assert rule.features == ()
    assert [(one.index, one.weight, one.label) for one in rule.explains] == [(8, 0.75, "wants"), (9, 0.5, "")]
    assert PolicySet((policy,), "").watch.features == (6, 8, 9), "and what it clamps"


def test_features_and_a_probe_are_read_together_where_the_lock_says_so(tmp_path):
    path = with_probe(tmp_path)
    probe = {"weights": WEIGHTS, "bias": -0.5, "scale": 2.0}
    write_lock(path, relocked(detector="combined", probe=probe, explain=EXPLAIN), PAIR)
    policy, problems = resolved(path)
    assert not problems
    (rule,) = policy.rules
    assert [(one.index, one.weight) for one in rule.features] == [(5, 1.0)]
    assert rule.probe.weights == tuple(WEIGHTS)
    assert [one.index for one in rule.explains] == [8, 9]
    with pytest.raises(ValidationError, match="`combined` as detector needs the section `probe:`"):
        relocked(detector="combined", probe=None)


def test_a_feature_that_explains_must_be_one_of_the_dictionary(tmp_path):
    path = with_probe(tmp_path)
    probe = {"weights": WEIGHTS, "bias": -0.5, "scale": 2.0}
    write_lock(path, relocked(detector="probe", probe=probe, explain=[{**EXPLAIN[0], "index": 100}]), PAIR)
    policy, problems = resolved(path)
    assert policy is None
    assert ["feature 100 does not exist" in problem.message for problem in problems] == [True]
