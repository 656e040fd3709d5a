"""Stale locks are found, each difference by name."""

import pytest

from monitor.policy.files.lock import write_lock
from monitor.policy.files.lock_checks import disagreements, mend, stale_checks, wrong_width
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.source import Running, read_source
from monitor.policy.policyset import PolicySet
from monitor.records import Signal
from tests.policy.files.loaded import problems
from tests.policy.files.resolved import relocked, resolved, with_probe
from tests.policy.policy_files import (
    CONCEPT,
    DICTIONARY,
    EXAMPLES,
    MODEL,
    NOTHING,
    PAIR,
    PINNED,
    lock_for,
    write_concept,
    write_policy,
)


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"features": 6}, "feature 6 does not exist"),
        (
            {"maxima": [1.0] * 5 + [2.0, 3.5] + [1.0] * 93},
            "feature 6 was fitted with the maximum 3; it is 3.5 now",
        ),
        ({"maxima": [1.0] * 5 + [0.0, 3.0] + [1.0] * 93}, "feature 5 was never seen active"),
    ],
)
def test_a_lock_of_something_else_is_refused_by_name(tmp_path, more, word):
    write_concept(tmp_path)
    found = problems(tmp_path, **more)
    assert word in found[0].message
    assert found[0].file.endswith("greed.lock.yaml")
    assert "policy fit" in found[0].hint or "feature" in found[0].hint


OTHER = "sha256:" + "9" * 64


@pytest.mark.parametrize(
    ("more", "said", "hint"),
    [
        ({"model_digest": OTHER}, "; locks/mine is of another model", "policy recheck {} --model MODEL"),
        (
            {"dictionary_digest": OTHER},
            "; locks/mine is of another dictionary",
            "policy fit {} --model MODEL",
        ),
        (
            {"model_digest": OTHER, "dictionary_digest": OTHER, "pair": "small"},
            "; locks/mine is of another model and dictionary",
            "policy fit {} --pair small`",
        ),
    ],
)
def test_a_policy_without_a_lock_for_what_runs_is_refused_by_name(tmp_path, more, said, hint):
    path, _ = write_concept(tmp_path)
    (found,) = problems(tmp_path, **more)
    assert found.message.startswith("`greed` has no lock for the running model sha256:")
    assert found.message.endswith(said)
    assert found.file == str(path)
    assert hint.format(tmp_path) in found.hint


def test_a_lock_goes_stale_with_its_policy(tmp_path):
    path, _ = write_concept(tmp_path)
    text = path.read_text()
    path.write_text(text.replace("pooling: max", "pooling: mean"))
    assert "changed its pooling" in problems(tmp_path)[0].message
    path.write_text(text.replace("- I want all", "- I want nearly all"))
    assert "fitted to other examples" in problems(tmp_path)[0].message
    path.write_text(text)
    lock_path(path, PAIR).unlink()
    (found,) = problems(tmp_path)
    assert "never fitted" in found.message
    assert str(tmp_path) in found.hint


def test_a_probe_of_another_width_is_a_problem(tmp_path):
    _, problems = resolved(with_probe(tmp_path, [1.0, 2.0]))
    assert "2 weights" in problems[0].message
    assert problems[0].file.endswith(".lock.yaml")


def test_the_detector_that_the_policy_asks_for_must_be_the_locks(tmp_path):
    asked = CONCEPT.replace("concept:\n", "concept:\n  detector: features\n")
    _, problems = resolved(with_probe(tmp_path, text=asked))
    assert "holds another detector: probe, not features" in problems[0].message


CONDITIONS = """\
conditions:
  odd:
    signal: residual_norm
    threshold: {false_positive_rate: 0.01}
  wants:
    features: [{index: 3}]
    threshold: 0.5
"""


def test_conditions_need_their_own_thresholds_in_the_lock(tmp_path):
    head = PINNED.split("features:\n")[0]
    path = write_policy(tmp_path, head + CONDITIONS + "rules:\n  - name: r\n    when: {all: [odd, wants]}\n")
    rule = lock_for(EXAMPLES).model_dump(by_alias=True)["rules"]["stated"] | {"signal": "residual_norm"}
    write_lock(path, relocked(rules={}, conditions={"odd": rule}), PAIR)
    policy, problems = resolved(path)
    assert not problems
    assert [c.signal for c in policy.conditions] == [Signal.RESIDUAL_NORM, None]
    assert [f.index for f in policy.rules[0].features] == [3]
    assert PolicySet((policy,), "").watch.signals == (Signal.RESIDUAL_NORM,)
    write_lock(path, relocked(rules={}), PAIR)
    assert "no threshold for the condition `odd`" in resolved(path)[1][0].message
    write_lock(path, relocked(rules={}, conditions={"odd": rule | {"signal": "reconstruction_error"}}), PAIR)
    assert "changed its pooling, `for`, signal or rate" in resolved(path)[1][0].message


def test_what_was_pinned_to_another_dictionary(tmp_path):
    path = write_policy(tmp_path, PINNED.replace("features:\n", f"dictionary: {DICTIONARY}\nfeatures:\n", 1))
    source = read_source(path, None)
    assert disagreements(source, Running(MODEL, DICTIONARY, 100)) == []
    (found,) = disagreements(source, Running(MODEL, NOTHING, 100))
    assert "pinned to another dictionary than the running sha256:000000000000…" in found.message
    assert found.line == 1 + path.read_text().splitlines().index(f"dictionary: {DICTIONARY}")


def test_every_claim_of_a_lock_that_is_not_so_is_told_at_its_line(tmp_path):
    path, _ = write_concept(tmp_path)
    found = disagreements(read_source(path, PAIR), Running(NOTHING, NOTHING, 100))
    assert [problem.message.split(": ")[0].split("` ")[1] for problem in found] == [
        "was fitted to another model",
        "was fitted to another dictionary",
    ]
    lines = lock_path(path, PAIR).read_text().splitlines()
    assert [lines[problem.line - 1].split(":")[0].strip() for problem in found] == ["digest", "digest"]
    assert all(problem.hint == mend(read_source(path, None)) for problem in found)
    assert f"policy fit {tmp_path} --model" in found[0].hint


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pooling: max", "pooling: mean"),
        ("    pooling", "    for: 2\n    pooling"),
        ("rate: 0.01", "rate: 0.02"),
    ],
)
def test_thresholds_that_were_set_for_other_settings(tmp_path, old, new):
    path, _ = write_concept(tmp_path)
    source = read_source(path, PAIR)
    assert stale_checks(source, source.lock) == []
    path.write_text(path.read_text().replace(old, new))
    source = read_source(path, PAIR)
    (found,) = stale_checks(source, source.lock)
    assert found.message == "`stated` changed its pooling, `for`, signal or rate since it was fitted"
    (found,) = stale_checks(source, source.lock.model_copy(update={"rules": {}}))
    assert found.message == "the lock has no threshold for the rule `stated`"


def test_a_probe_of_the_policys_own_has_the_width_of_the_model(tmp_path):
    path = write_policy(
        tmp_path,
        PINNED.replace(
            "features:\n  - {index: 3, label: wants}\n  - {index: 7, weight: 0.5}\n",
            "probe:\n  weights: [1.0, 2.0]\n",
        ),
    )
    source = read_source(path, None)
    assert wrong_width(source, Running(MODEL, DICTIONARY, 100, width=2)) == []
    assert wrong_width(source, Running(MODEL, DICTIONARY, 100)) == []
    (found,) = wrong_width(source, Running(MODEL, DICTIONARY, 100, width=3))
    assert found.message == "the probe has 2 weights; the running model is 3 wide"
    assert (found.file, found.hint) == (str(path), "write a probe of the running model")
