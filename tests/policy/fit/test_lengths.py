"""Thresholds by length: what a rate means for texts of every length."""

import numpy as np
import pytest

from monitor.errors import PolicyError
from monitor.policy.fit.lengths import EDGES, NEVER, BucketMaxima, bucket_maxima, calibrate, fires

RNG = np.random.default_rng(5)


def walks(count, longest=300):
    return [RNG.normal(0, 1, int(n)) for n in np.exp(RNG.uniform(np.log(4), np.log(longest), count))]


def pairs(buckets):
    return [(b.up_to, b.threshold) for b in buckets]


def fired_at(course, thresholds):
    """The definition: the first token whose score reaches the threshold of its count."""
    for count, value in enumerate(course, 1):
        limit = next(v for up_to, v in thresholds if up_to is None or count <= up_to)
        if value >= limit:
            return True
    return False


def test_bucket_maxima_are_those_of_their_tokens():
    courses = [np.arange(10.0), np.array([5.0, 1.0]), np.zeros(0)]
    best = bucket_maxima(courses, (4, 8)).best
    assert best.tolist() == [[3.0, 7.0, 9.0], [5.0, NEVER, NEVER], [0.0, NEVER, NEVER]]


@pytest.mark.parametrize("rate", [0.01, 0.05])
def test_the_rate_holds_at_every_length_on_texts_that_set_no_threshold(rate):
    thresholds = pairs(calibrate(bucket_maxima(walks(4000), (32, 128)), rate))
    fresh = walks(4000)
    for low, high in ((0, 32), (32, 128), (128, 10_000)):
        group = [text for text in fresh if low < len(text) <= high]
        share = np.mean([fired_at(text, thresholds) for text in group])
        assert share < rate + 3 * np.sqrt(rate / len(group)), (low, high)


def test_one_threshold_for_all_lengths_would_not_hold():
    short, long = [t for t in walks(4000) if len(t) <= 32], [t for t in walks(4000) if len(t) > 128]
    single = [(None, np.quantile([t.max() for t in short], 0.99))]
    assert np.mean([fired_at(t, single) for t in long]) > 0.03


def test_thresholds_fire_as_the_definition_says():
    courses = walks(500)
    reached = bucket_maxima(courses, (32, 128))
    thresholds = [(32, 2.0), (128, 2.5), (None, 3.0)]
    assert fires(reached, thresholds).tolist() == [int(fired_at(c, thresholds)) for c in courses]
    assert fires(reached, [(None, 2.5)]).tolist() == [int(fired_at(c, [(None, 2.5)])) for c in courses]
    finer = [(10, 9.0), (60, 2.0), (None, 3.0)]
    assert fires(reached, finer).sum() >= sum(fired_at(c, finer) for c in courses)


def test_few_long_texts_join_the_bucket_before():
    short = [RNG.normal(0, 1, 20) for _ in range(400)]
    buckets = calibrate(bucket_maxima([*short, RNG.normal(0, 1, 200)], (32, 128)), 0.01)
    assert [b.up_to for b in buckets] == [None]
    assert buckets[0].texts == 401


def test_no_threshold_is_below_the_least():
    silent = BucketMaxima(np.zeros((300, 3)), (32, 128))
    assert [b.threshold for b in calibrate(silent, 0.01, 0.4)] == [0.4, 0.4, 0.4]
    assert all(b.threshold > 0 for b in calibrate(silent, 0.01))


def test_of_ten_thousand_texts_at_most_the_rate_less_one_fires():
    scores = RNG.normal(0, 1, (10_000, 1))
    (bucket,) = calibrate(BucketMaxima(scores, ()), 0.01)
    assert (scores >= bucket.threshold).sum() == 99


def test_equal_scores_never_let_more_fire_than_asked():
    scores = bucket_maxima([np.asarray([value]) for value in np.repeat([0.0, 1.0, 2.0], [180, 15, 5])], (16,))
    for rate in (0.01, 0.025, 0.05, 0.1):
        pairs = [(bucket.up_to, bucket.threshold) for bucket in calibrate(scores, rate)]
        assert fires(scores, pairs).mean() <= rate


def test_a_score_that_is_no_number_ends_the_fit():
    with pytest.raises(PolicyError, match="NaN"):
        bucket_maxima([np.asarray([0.1, np.nan])], (16,))


def test_a_rule_that_needs_more_tokens_than_the_first_lengths_have_gets_a_threshold():
    silent = np.full(60, -np.inf)
    scores = bucket_maxima([np.append(silent, value) for value in np.linspace(0, 1, 300)], EDGES)
    (bucket,) = calibrate(scores, 0.05)
    assert (bucket.up_to, bucket.texts) == (None, 300)
    assert 0.94 < bucket.threshold < 0.97
