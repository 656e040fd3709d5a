"""Thresholds of rules and conditions, against counts over benign texts."""

import base64

import numpy as np
import pytest

from monitor.policy.files.lock import LockedRule
from monitor.policy.fit import fit_policy
from monitor.policy.fit.detectors import FeatureDetector
from monitor.policy.fit.lengths import EDGES, BucketMaxima, fires
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.thresholds import learnt, lock_thresholds, poolings
from monitor.policy.schema.policy import Max, PolicyModel, TopKMean
from monitor.policy.schema.threshold import threshold_at, thresholds_by_length
from tests.policy.synthetic import QUICK, Synthetic, examples, inputs, policy

HEAD = {"name": "p", "title": "P", "category": "c", "severity": "low", "description": "d"}


def pinned(**rule):
    return PolicyModel.model_validate(
        {
            "apiVersion": "monitor/v1",
            "metadata": HEAD,
            "features": [{"index": 4}],
            "rules": [{"name": "r", "action": "alert", **rule}],
        }
    )


@pytest.fixture(scope="module")
def benign():
    return Synthetic().read([f"benign {i}" for i in range(400)])


def highest(read, feature):
    """Each text's highest reading of a feature, in plain loops."""
    return np.array([max(read.tokens.of(i).toarray()[:, feature], default=-np.inf) for i in range(len(read))])


def test_what_reads_the_policys_detector():
    rules = [
        {"name": "own", "features": [{"index": 3}], "threshold": 0.5, "action": "alert"},
        {"name": "learnt", "pooling": "max", "threshold": {"false_positive_rate": 0.02}, "action": "alert"},
        {"name": "both", "when": "odd", "action": "alert"},
    ]
    conditions = {"odd": {"threshold": 0.5, "for": 2}}
    made = policy(rules, conditions=conditions, suppress=None)
    assert set(learnt(made)) == {("rules", "learnt"), ("conditions", "odd")}
    found = dict(zip(learnt(made), poolings(made), strict=True))
    assert found == {("rules", "learnt"): RulePooling(Max()), ("conditions", "odd"): RulePooling(Max(), 2)}


def test_a_policy_that_learns_nothing_is_measured_with_one_pooling():
    only = {"name": "own", "signal": "residual_norm", "threshold": 0.5, "action": "alert"}
    assert poolings(policy([only], concept=None, suppress=None)) == (RulePooling(TopKMean()),)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_at_most_the_rate_that_is_asked_for_fires(benign, rate):
    detector = FeatureDetector(np.array([4]), np.array([1.0]))
    found = lock_thresholds(pinned(threshold={"false_positive_rate": rate}), [benign], pinned=detector)
    locked = found["rules", "r"]
    assert isinstance(locked, LockedRule)
    assert (locked.asked_rate, locked.benign_texts, locked.caught) == (rate, 400, None)
    share = np.mean(highest(benign, 4) >= threshold_at(locked.threshold, 10))
    assert share <= rate
    assert locked.benign_rate <= rate


def test_a_threshold_that_is_given_is_measured_and_not_changed(benign):
    detector = FeatureDetector(np.array([4]), np.array([1.0]))
    locked = lock_thresholds(pinned(threshold=0.4), [benign], pinned=detector)["rules", "r"]
    assert (locked.threshold, locked.asked_rate) == (0.4, None)
    assert locked.benign_rate == pytest.approx(np.mean(highest(benign, 4) >= 0.4))
    half = benign.take(np.arange(200))
    rest = benign.take(np.arange(200, 400))
    parts = lock_thresholds(pinned(threshold=0.4), [half, rest], pinned=detector)["rules", "r"]
    assert parts == locked, "benign texts in parts are benign texts"


def test_a_lock_holds_what_positives_score_so_that_any_threshold_says_what_it_catches():
    lock = fit_policy(policy(), examples(20), inputs(Synthetic()), settings=QUICK)
    for locked in lock.rules.values():
        scores = np.frombuffer(base64.b64decode(locked.held_out), "<f4").reshape(-1, len(EDGES) + 1)
        assert len(scores) >= 20
        fired = fires(BucketMaxima(scores.astype(float), EDGES), thresholds_by_length(locked.threshold))
        assert fired.mean() == locked.caught
