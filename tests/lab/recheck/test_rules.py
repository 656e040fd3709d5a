"""The verdict on one rule, from scores that are made: unchanged, scaled, shuffled, few."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.lab.recheck.rules import Margins, PairedScores, RecheckVerdict, recheck_rule
from monitor.lab.recheck.scores import CalibrationTexts
from monitor.policy.files.lock import LockedRule, Separation
from monitor.policy.fit.lengths import EDGES, NEVER, BucketMaxima, calibrate, fires

LEAF = ("rules", "stated")
HOLDS, STALE, DEGRADED, INCONCLUSIVE = (
    RecheckVerdict.HOLDS,
    RecheckVerdict.STALE,
    RecheckVerdict.DEGRADED,
    RecheckVerdict.INCONCLUSIVE,
)


def calibration(positive, negative, benign):
    """Texts that are all their own groups."""
    counts = (positive, negative, benign)
    total = sum(counts)
    return CalibrationTexts(
        texts=[f"text {i}" for i in range(total)],
        positive=np.repeat([1, 0, 0], counts),
        own=np.repeat([1, 1, 0], counts),
        hard=np.zeros(total, np.intp),
        groups=np.arange(total),
        beside=np.ones(total, np.intp),
    )


def scored(texts, seed=0):
    """Positives around 3, all others around 0; a third of the texts is long enough for a second range."""
    rng = np.random.default_rng(seed)
    best = np.full((len(texts.texts), len(EDGES) + 1), NEVER)
    height = np.where((texts.own == 1) & (texts.positive == 1), 3.0, 0.0)
    best[:, 0] = rng.normal(height, 1)
    long = rng.random(len(best)) < 0.34
    best[long, 1] = rng.normal(height[long], 1)
    return BucketMaxima(best, EDGES)


def locked(threshold=2.2, **more):
    return LockedRule.model_validate(
        {
            "threshold": threshold,
            "pooling": {"kind": "max"},
            "asked_rate": 0.02,
            "benign_rate": 0.02,
            "benign_texts": 2000,
            "caught": 0.75,
            **more,
        }
    )


CARD = Separation(auroc=0.97, auroc_low=0.95, auroc_high=0.99, recall=0.7, recall_low=0.55, recall_high=0.85)


def rechecked(texts, then, now, thresholds=((None, 2.2),), card=None, margins=None):
    scores = PairedScores(texts, now, then, np.arange(len(texts.texts)), card)
    return recheck_rule(LEAF, locked(), thresholds, scores, margins or Margins())


@pytest.fixture
def texts():
    return calibration(90, 180, 600)


def test_scores_that_hardly_differ_hold(texts):
    then = scored(texts)
    rng = np.random.default_rng(5)
    found = rechecked(texts, then, BucketMaxima(then.best + rng.normal(0, 0.005, then.best.shape), EDGES))
    assert (found.verdict, found.proposed, found.paired) == (HOLDS, None, True)
    assert [one.name for one in found.checks] == [
        "false_positives",
        "caught",
        "score_shift",
        "auroc",
        "recall",
    ]
    assert all(one.more == 0 for one in found.checks)


@pytest.mark.parametrize("by", [0.7, 1.3])
def test_scaled_scores_are_stale_and_the_thresholds_go_along(texts, by):
    then = scored(texts)
    now = BucketMaxima(then.best * by, EDGES)
    found = rechecked(texts, then, now)
    assert found.verdict is STALE
    assert found.check("auroc").change.value == 0
    assert found.check("score_shift").change.value == pytest.approx((by - 1) * 2.2 / 2.2, abs=0.05)
    assert found.proposed == ((None, pytest.approx(2.2 * by)),)
    assert (fires(now, found.proposed) == fires(then, [(None, 2.2)])).all()
    assert [one.change.value for one in found.after] == [0.0, 0.0]


def test_each_range_of_lengths_gets_its_own_threshold(texts):
    then = scored(texts)
    limits = ((16, 2.0), (None, 2.4))
    found = rechecked(texts, then, BucketMaxima(then.best * 1.5 + 1, EDGES), limits)
    assert found.verdict is STALE
    assert found.proposed == ((16, pytest.approx(4.0)), (None, pytest.approx(4.6)))


def test_shuffled_scores_are_degraded_and_get_no_thresholds(texts):
    then = scored(texts)
    order = np.random.default_rng(3).permutation(len(then.best))
    found = rechecked(texts, then, then.take(order))
    assert (found.verdict, found.proposed) == (DEGRADED, None)


def test_few_texts_decide_nothing_even_if_nothing_changed():
    few = calibration(8, 8, 40)
    then = scored(few)
    found = rechecked(few, then, then)
    assert found.verdict is INCONCLUSIVE
    assert found.check("caught").more >= 12
    assert found.check("false_positives").more >= 60


def test_as_many_texts_as_were_said_to_lack_are_enough():
    few = calibration(25, 25, 300)
    then = scored(few)
    found = rechecked(few, then, then)
    assert found.verdict is INCONCLUSIVE
    more = calibration(25 + found.check("caught").more, 25, 300 + found.check("recall").more)
    now = scored(more)
    assert rechecked(more, now, now).verdict is HOLDS


def test_a_loss_that_hides_behind_seen_texts_shows_only_text_by_text(texts):
    """Rules score the texts that they learnt from too well, so the lock's held-out numbers hide a loss."""
    then = scored(texts)
    rng = np.random.default_rng(4)
    worse = np.where(np.isfinite(then.best), then.best + rng.normal(0, 1.2, then.best.shape), NEVER)
    now = BucketMaxima(worse, EDGES)
    assert rechecked(texts, then, now).verdict is DEGRADED
    low_card = Separation(
        auroc=0.85, auroc_low=0.8, auroc_high=0.9, recall=0.3, recall_low=0.1, recall_high=0.5
    )
    assert rechecked(texts, None, now, card=low_card).check("auroc").found == "same"


def test_a_rule_that_knows_its_examples_by_heart_is_judged_by_how_far_scores_scatter(texts):
    """Far apart as they are, these scores separate as before. On unseen texts, which lie closer, they would not."""
    then = scored(texts)
    apart = BucketMaxima(then.best + 20 * (texts.own * texts.positive)[:, None], EDGES)
    noise = np.random.default_rng(4).normal(0, 1.0, then.best.shape)
    card = Separation(auroc=0.9, auroc_low=0.85, auroc_high=0.95, recall=0.5, recall_low=0.3, recall_high=0.7)
    found = rechecked(texts, apart, BucketMaxima(apart.best + noise, EDGES), card=card)
    assert found.check("auroc").change.value == 0
    assert found.check("held_out_auroc").now.value == pytest.approx(0.82, abs=0.02)
    assert found.verdict is DEGRADED
    little = rechecked(texts, apart, BucketMaxima(apart.best + 0.1 * noise, EDGES), card=card)
    assert little.check("held_out_auroc").change.value == pytest.approx(0, abs=0.005)
    assert little.verdict is HOLDS


def test_without_recorded_scores_the_lock_stands_in(texts):
    now = scored(texts)
    held = rechecked(texts, None, now, card=CARD)
    assert (held.verdict, held.paired, held.check("score_shift")) == (HOLDS, False, None)
    far = BucketMaxima(now.best * 2, EDGES)
    moved = rechecked(texts, None, far, card=CARD)
    assert moved.verdict is STALE
    assert moved.proposed == tuple(
        (one.up_to, one.threshold) for one in calibrate(far.take(texts.benign), 0.02, 0.0)
    )
    assert moved.after[0].found == "same"
    lost = BucketMaxima(np.where(np.isfinite(now.best), 0.01 * now.best + 1, NEVER), EDGES)
    noise = lost.take(np.random.default_rng(6).permutation(len(lost.best)))
    assert rechecked(texts, None, noise, card=CARD).verdict is DEGRADED


def test_a_rule_without_examples_is_judged_by_benign_texts_alone():
    benign = calibration(0, 0, 600)
    then = scored(benign)
    found = rechecked(benign, then, then)
    assert found.verdict is HOLDS
    assert [one.name for one in found.checks] == ["false_positives", "score_shift"]
    assert rechecked(benign, then, BucketMaxima(then.best * 1.5, EDGES)).verdict is STALE


def test_texts_that_nobody_scored_then_count_only_as_what_fires_now(texts):
    then = scored(texts)
    known = np.flatnonzero((texts.own == 1) | (np.arange(len(texts.texts)) % 2 == 0))
    scores = PairedScores(texts, then, then, known, None)
    found = recheck_rule(LEAF, locked(), ((None, 2.2),), scores, Margins())
    assert found.check("false_positives").texts == 300
    assert found.check("false_positives").now.value == fires(then, [(None, 2.2)])[texts.benign].mean()


def test_examples_of_one_group_are_one_piece_of_evidence(texts):
    then = scored(texts)
    grouped = replace(texts, groups=np.where(texts.own == 1, np.arange(len(texts.texts)) // 10, texts.groups))
    found = rechecked(grouped, then, then)
    assert found.check("caught").texts == 9
    assert found.verdict is INCONCLUSIVE


def test_wider_margins_forgive_more(texts):
    then = scored(texts)
    now = BucketMaxima(then.best * 1.15, EDGES)
    assert rechecked(texts, then, now).verdict is STALE
    wide = Margins(0.2, 0.5, 0.5, 0.2, 0.5)
    assert rechecked(texts, then, now, margins=wide).verdict is HOLDS
