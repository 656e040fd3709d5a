"""A lock belongs to the features and the probe that a policy pins, and to settings of any number of digits."""

import numpy as np
import pytest

from monitor.policy.files.lock import write_lock
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, read_source
from monitor.policy.fit import fit_policy
from monitor.policy.fit.detectors import ProbeDetector
from tests.policy.policy_files import DICTIONARY, MODEL, PAIR, write_policy
from tests.policy.synthetic import FEATURES, QUICK, Synthetic, inputs

HEAD = """\
apiVersion: monitor/v1
metadata: {name: greed, title: G, category: c, severity: low, description: d}
"""
RATE = "threshold: {false_positive_rate: 0.0123456}"
SHARED = f"features: [{{index: 4, weight: 0.1234567}}]\nrules:\n  - {{name: r, {RATE}}}\n"
OWN = f"rules:\n  - {{name: r, features: [{{index: 4}}], {RATE}}}\n"
CONDITION = (
    f"conditions:\n  a: {{features: [{{index: 4}}], {RATE}}}\nrules:\n  - {{name: r, when: {{all: [a]}}}}\n"
)
PROBE = f"probe: {{weights: [1, 0, 0, 0, 0, 0, 0, 0]}}\nrules:\n  - {{name: r, {RATE}}}\n"


def fitted(folder, text):
    path = write_policy(folder, HEAD + text)
    source = read_source(path, None)
    probe = source.model.probe and ProbeDetector(np.asarray(source.weights), 0.0, 1.0)
    write_lock(path, fit_policy(source.model, (), inputs(Synthetic()), settings=QUICK, pinned=probe), PAIR)
    return path


def complaints(path, maxima=Synthetic.maxima):
    problems, running = [], Running(MODEL, DICTIONARY, FEATURES, maxima=maxima)
    resolve(read_source(path, running), running, problems)
    return [problem.message for problem in problems]


@pytest.mark.parametrize(
    "pooling", ["{kind: ema, half_life: 12.345678}", "{kind: cumulative, allowance: 0.1234567}"]
)
def test_numbers_of_many_digits_are_not_stale_when_they_were_just_fitted(tmp_path, pooling):
    path = fitted(tmp_path, SHARED.replace("name: r,", f"name: r, pooling: {pooling},"))
    assert complaints(path) == []


@pytest.mark.parametrize(
    ("text", "old", "new"),
    [
        (SHARED, "0.1234567", "50"),
        (SHARED, "index: 4", "index: 17"),
        (OWN, "index: 4", "index: 17"),
        (OWN, "index: 4", "index: 4, weight: 2"),
        (OWN, "{index: 4}", "{index: 4}, {index: 17}"),
        (OWN, "features: [{index: 4}]", "signal: residual_norm"),
        (CONDITION, "index: 4", "index: 17"),
        (PROBE, "[1,", "[9,"),
        (PROBE, "0]}", "0], bias: 3}"),
    ],
)
def test_what_is_pinned_cannot_change_under_a_threshold_that_was_set_for_it(tmp_path, text, old, new):
    path = fitted(tmp_path, text)
    assert complaints(path) == []
    write_policy(tmp_path, HEAD + text.replace(old, new))
    (message,) = complaints(path)
    assert "fitted" in message


def test_the_unit_of_a_pinned_feature_is_that_of_the_fit(tmp_path):
    path = fitted(tmp_path, OWN)
    (message,) = complaints(path, Synthetic.maxima * 2)
    assert "feature 4 was fitted with the maximum 2; it is 4 now" in message
