"""The choice of a detector: the simplest that is not worse than the best by more than chance."""

import numpy as np
import pytest

from monitor.policy.fit.choice import DetectorChoice, Judge, Quality, choose, simplest
from monitor.policy.fit.metrics import Truth

TEXTS = 600


@pytest.fixture(scope="module")
def truth():
    """200 positives, 200 own negatives, 200 benign texts; groups of two."""
    kind = np.arange(TEXTS) % 3
    return Truth(
        positive=(kind == 0).astype(np.intp),
        own=(kind < 2).astype(np.intp),
        hard=np.zeros(TEXTS, np.intp),
        groups=np.arange(TEXTS) // 6,
    )


def scores(truth, strength, seed=0):
    return np.random.default_rng(seed).normal(0, 1, TEXTS) + strength * truth.positive


def test_quality_is_half_area_and_half_recall_at_low_rates(truth):
    judge = Judge(truth, 0)
    assert judge.quality(np.where(truth.positive == 1, 1.0, 0.0)).value == 1.0
    assert judge.quality(np.zeros(TEXTS)).value == pytest.approx(0.25), "an area of one half and no recall"
    weak, strong = (judge.quality(scores(truth, s)).value for s in (1.0, 3.0))
    assert 0.3 < weak < strong < 1.0


def test_benign_texts_that_score_high_lower_the_quality_and_leave_the_area_alone(truth):
    judge, found = Judge(truth, 0), scores(truth, 3.0)
    loud = found + 6.0 * ((truth.own == 0) & (np.arange(TEXTS) % 5 == 0))
    assert judge.quality(loud).value < judge.quality(found).value - 0.2


def test_the_first_that_is_as_good_as_the_best_within_its_standard_error():
    draws = np.random.default_rng(0).normal(0, 0.02, 60)
    near, far = Quality(0.80, draws), Quality(0.90, draws[::-1])
    assert simplest([Quality(0.895, draws), far]) == 0
    assert simplest([near, far]) == 1
    assert simplest([far, near]) == 0
    steady = Quality(0.899, draws[::-1] - 0.001)
    assert simplest([steady, far]) == 1, "a loss that is the same in every resample is no chance"


@pytest.mark.parametrize(
    ("strengths", "wanted"),
    [
        ({"features": 3.0, "probe": 3.0, "combined": 3.0}, "features"),
        ({"features": 1.0, "probe": 3.0, "combined": 3.0}, "probe"),
        ({"features": 1.0, "probe": 1.0, "combined": 3.0}, "combined"),
    ],
)
def test_the_kind_that_detects_is_taken(truth, strengths, wanted):
    def scored(choice):
        return scores(truth, strengths[choice.kind])

    found = choose(Judge(truth, 0), scored, (1, 4, 16), None)
    assert (found.kind, found.size) == (wanted, 1)
    assert choose(Judge(truth, 0), scored, (1, 4, 16), "probe").kind == "probe"


def test_as_many_features_are_taken_as_buy_something(truth):
    def scored(choice):
        return scores(truth, 0.5 * min(choice.size, 8) ** 0.9)

    assert choose(Judge(truth, 0), scored, (1, 2, 4, 8, 16, 32), "features") == DetectorChoice(
        "features", 8, 0.25
    )
