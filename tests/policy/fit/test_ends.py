"""Numbers at their ends: thresholds at and below zero, shares of 0 and 1, scores that are none."""

import numpy as np
import pytest

from monitor.errors import PolicyError
from monitor.policy.files.lock import LockedRule
from monitor.policy.fit.detectors import SignalDetector
from monitor.policy.fit.evaluation import BenignRate
from monitor.policy.fit.lengths import EDGES, calibrate, fires, reach
from monitor.policy.fit.metrics import Truth, measure_all
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.rule_scorers import LockedRuleScorer
from monitor.policy.schema.policy import Max
from tests.policy.synthetic import Synthetic


@pytest.mark.parametrize("threshold", [-0.7, 0.0, 1.3])
def test_a_share_of_one_is_where_the_rule_fires_whatever_the_sign(threshold):
    rule = {"threshold": threshold, "pooling": {"kind": "max"}, "benign_rate": 0.0, "benign_texts": 1}
    locked = LockedRule.model_validate(rule)
    trial = LockedRuleScorer("p", "r", SignalDetector("residual_norm"), RulePooling(Max()), locked)
    read = Synthetic().read([f"no {i}" for i in range(40)])
    noise = np.random.default_rng(0).normal(0, 1, len(read.residuals))
    read.signals["residual_norm"][:] = threshold - 1.7 + noise
    fired = trial.fired(read)
    assert 0 < fired.sum() < len(fired)
    assert [trial.share(read, i) >= 1 for i in range(len(read))] == [bool(f) for f in fired]


def test_intervals_at_zero_and_one_are_not_points():
    zeros, ones = np.zeros(40, np.intp), np.ones(40, np.intp)
    truth = Truth(
        positive=np.concatenate([ones, zeros]),
        own=np.concatenate([ones, zeros]),
        hard=np.zeros(80, np.intp),
        groups=np.arange(80),
    )
    apart = np.concatenate([np.full(40, 2.0), np.linspace(0, 1, 40)])
    found = measure_all({"all": apart, "none": -apart}, truth, 0)
    exact = 0.025 ** (1 / 40)
    best, worst = found["all"].measure, found["none"].measure
    assert (best.recall, best.recall_high) == (1.0, 1.0)
    assert best.recall_low == pytest.approx(exact)
    assert (worst.recall, worst.recall_low) == (0.0, 0.0)
    assert worst.recall_high == pytest.approx(1 - exact)
    for fired in (0, 40):
        low, high = BenignRate("p", "r", None, "s", 0, None, 40, fired).interval
        assert 0 <= low < high <= 1


def test_equal_scores_never_let_more_fire_than_asked():
    scores = reach([np.asarray([value]) for value in np.repeat([0.0, 1.0, 2.0], [180, 15, 5])], (16,))
    for rate in (0.01, 0.025, 0.05, 0.1):
        pairs = [(bucket.up_to, bucket.threshold) for bucket in calibrate(scores, rate)]
        assert fires(scores, pairs).mean() <= rate


def test_a_score_that_is_no_number_ends_the_fit():
    with pytest.raises(PolicyError, match="NaN"):
        reach([np.asarray([0.1, np.nan])], (16,))


def test_a_rule_that_needs_more_tokens_than_the_first_lengths_have_gets_a_threshold():
    silent = np.full(60, -np.inf)
    scores = reach([np.append(silent, value) for value in np.linspace(0, 1, 300)], EDGES)
    (bucket,) = calibrate(scores, 0.05)
    assert (bucket.up_to, bucket.texts) == (None, 300)
    assert 0.94 < bucket.threshold < 0.97
