"""Fitting on a synthetic reader whose features are known: which are found, and what the lock then does."""

import numpy as np
import pytest

from monitor.errors import PolicyError
from monitor.policy.files.examples import Example, Label
from monitor.policy.fit import LabelledTexts, fit_policy
from monitor.policy.fit.feature_selection import choose_clamps
from monitor.policy.fit.metrics import auroc, threshold_at
from monitor.policy.fit.pooling import attention, course, pooled
from monitor.policy.fit.weights import logistic
from monitor.policy.schema.policy import threshold_at as threshold_for
from tests.policy.conftest import naive_pooled
from tests.policy.synthetic import CAUSAL, CONCEPT, QUICK, Synthetic, examples, inputs, policy


def fires(scores, rule):
    """Whether a rule fires on token scores, token by token as the running rule does."""
    running = course(scores, rule.pooling, rule.for_)
    return any(value >= threshold_for(rule.threshold, t) for t, value in enumerate(running, 1))


@pytest.fixture(scope="module")
def lock():
    reader = Synthetic()
    return fit_policy(policy(), examples(), inputs(reader), settings=QUICK)


def test_the_features_of_the_concept_are_found(lock):
    found = [f.index for f in lock.features]
    assert set(CONCEPT) <= set(found)
    assert len(found) <= 8
    assert all(f.maximum == 2.0 for f in lock.features)
    assert all(f.weight > 0 for f in lock.features if f.index in CONCEPT)


def test_suppression_takes_the_causal_and_specific_feature_alone(lock):
    assert [c.index for c in lock.suppress] == [CAUSAL]
    assert lock.suppress[0].ratio > 4


def test_thresholds_hold_on_benign_texts_that_the_fit_never_saw(lock):
    reader = Synthetic()
    fresh = reader.read([f"benign {i}" for i in range(10_000, 11_000)]).tokens
    hits = reader.read([f"yes {i}" for i in range(10_000, 10_200)]).tokens
    columns = np.array([f.index for f in lock.features])
    weights = np.array([f.weight for f in lock.features])
    for rule in lock.rules.values():
        assert np.mean([fires(text @ weights, rule) for text in fresh.columns(columns)]) < 0.05
        assert np.mean([fires(text @ weights, rule) for text in hits.columns(columns)]) > 0.9


def test_the_card_says_that_it_works(lock):
    assert lock.card.methods["policy"].auroc > 0.98
    assert lock.card.maturity == "stable"
    assert lock.card.methods["bag_of_words"].auroc > 0.9, "the synthetic texts name their label"
    assert "bag of words" in lock.card.note
    assert (lock.card.positive, lock.card.hard_negative, lock.card.groups) == (40, 40, 40)


def test_the_card_says_that_it_does_not_work():
    rng = np.random.default_rng(0)
    shuffled = [Example(e.text, Label(rng.choice(list(Label))), e.group) for e in examples()]
    card = fit_policy(policy(), shuffled, inputs(Synthetic()), settings=QUICK).card
    assert card.methods["policy"].auroc < 0.7
    assert card.maturity == "experimental"
    assert "shadow" in card.note


def test_extra_rows_teach_and_are_not_measured():
    extra = LabelledTexts([f"yes {i}" for i in range(500, 540)], [True] * 40, [str(i) for i in range(40)])
    card = fit_policy(policy(), examples(12), inputs(Synthetic()), extra, QUICK).card
    assert (card.extra, card.positive) == (40, 12)


def test_fitting_twice_gives_the_same_lock(lock):
    assert fit_policy(policy(), examples(), inputs(Synthetic()), settings=QUICK) == lock


def test_a_concept_that_no_feature_follows_is_an_error():
    class Silent(Synthetic):
        def _one(self, text):
            rows, residuals = super()._one(text)
            return rows * 0, residuals

    with pytest.raises(PolicyError, match="no feature of this dictionary"):
        fit_policy(policy(), examples(), inputs(Silent()), settings=QUICK)


def test_pinned_features_get_thresholds_only():
    pinned = policy(
        concept=None, features=[{"index": 4}, {"index": 17}], suppress={"target": -1.0, "features": [4]}
    )
    lock = fit_policy(pinned, (), inputs(Synthetic()))
    assert lock.card is None
    assert lock.features == []
    assert 0 < lock.rules["stated"].benign_rate <= 0.02


def test_attention_reproduces_every_pooling(some_poolings):
    rng = np.random.default_rng(1)
    for pooling in some_poolings:
        if pooling.kind == "longest_run":
            continue
        scores = rng.exponential(1.0, 30)
        expected = max(naive_pooled(scores.tolist(), pooling, 1))
        counted = scores - getattr(pooling, "allowance", 0.0)
        assert attention(scores, pooling, 1) @ counted == pytest.approx(expected)
        assert pooled(scores, pooling, 1) == pytest.approx(expected)


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


def test_logistic_weights_minimise_the_loss_they_claim():
    rng = np.random.default_rng(4)
    x = rng.exponential(1.0, (200, 3))
    y = (x[:, 0] - x[:, 1] + rng.normal(0, 0.5, 200) > 0).astype(int)
    weights = logistic(x, y, np.ones(200))
    assert weights[0] > 0.3
    assert weights[1] == 0
    assert (weights >= 0).all()


def test_clamps_leave_out_what_benign_text_uses():
    effect, concept = np.array([3.0, 2.0, 1.0, 0.5, -1.0]), np.array([0.1, 0.1, 0.1, 0.0001, 0.1])
    benign, maxima = np.array([0.1, 0.01, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    found = choose_clamps(effect, concept, benign, maxima, -0.5)
    assert [c.index for c in found] == [1, 2]
    assert [c.target for c in found] == [-0.5, -0.5]
    assert choose_clamps(effect, concept, benign, np.zeros(5), -0.5) == []
