"""Separation of scores: AUROC, thresholds at a rate, and their intervals."""

import numpy as np
import pytest

from monitor.policy.fit.evaluation import BenignRate
from monitor.policy.fit.metrics import Truth, auroc, measure_all, threshold_at


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


def test_auroc_is_the_probability_of_the_right_order():
    rng = np.random.default_rng(2)
    yes, no = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 50).astype(float)
    pairs = [(a > b) + 0.5 * (a == b) for a in yes for b in no]
    assert auroc(yes, no) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("rate", [0.0001, 0.01, 0.1, 0.5])
def test_no_more_than_the_rate_reaches_the_threshold(rate):
    rng = np.random.default_rng(3)
    for scores in (rng.normal(0, 1, 500), np.zeros(100), rng.integers(0, 3, 300).astype(float)):
        threshold = threshold_at(scores, rate)
        assert (scores >= threshold).mean() <= rate
    spread = rng.normal(0, 1, 1000)
    assert (spread >= threshold_at(spread, rate)).sum() == int(rate * 1000)
