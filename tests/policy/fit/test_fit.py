"""Fitting on a synthetic reader whose features are known: which are found, and what the lock then does."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.errors import PolicyError
from monitor.policy.files.examples import Example, Label
from monitor.policy.fit import LabelledTexts, fit_policy
from monitor.policy.fit.pooling import course
from monitor.policy.schema.policy import threshold_at as threshold_for
from tests.policy.synthetic import CAUSAL, CONCEPT, QUICK, Synthetic, examples, inputs, policy


def fires(scores, rule):
    """Whether a rule fires on token scores, token by token as the running rule does."""
    running = course(scores, rule.pooling, rule.for_)
    return any(value >= threshold_for(rule.threshold, t) for t, value in enumerate(running, 1))


@pytest.fixture(scope="module")
def lock():
    reader = Synthetic()
    return fit_policy(policy(), examples(), inputs(reader), settings=QUICK)


def test_features_that_mark_the_concept_are_found_and_no_more_than_it_takes(lock):
    found = [f.index for f in lock.features]
    assert 1 <= len(found) <= 8
    assert set(found) <= {*CONCEPT, CAUSAL}
    assert all(f.maximum == 2.0 and f.weight > 0 and f.stability > 0.5 for f in lock.features)
    recalls = {size: one.recall for size, one in lock.card.sizes.items()}
    assert list(recalls) == ["1", "2", "4", "8", "16", "32", "64", "128", "all"]
    assert recalls["8"] <= lock.card.methods["features"].recall + 0.05
    assert set(lock.card.aggregates) == {"mean", "max", "last", "top_k_mean"}


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


@pytest.mark.slow
def test_the_card_says_that_it_does_not_work():
    rng = np.random.default_rng(0)
    shuffled = [Example(e.text, Label(rng.choice(list(Label))), e.group) for e in examples()]
    card = fit_policy(policy(), shuffled, inputs(Synthetic()), settings=QUICK).card
    assert card.methods["policy"].auroc < 0.7
    assert card.maturity == "experimental"
    assert "shadow" in card.note


@pytest.mark.slow
def test_extra_rows_teach_and_are_not_measured():
    extra = LabelledTexts([f"yes {i}" for i in range(500, 540)], [True] * 40, [str(i) for i in range(40)])
    card = fit_policy(policy(), examples(12), inputs(Synthetic()), extra, QUICK).card
    assert (card.extra, card.positive) == (40, 12)


@pytest.mark.slow
def test_fitting_twice_gives_the_same_lock(lock):
    assert fit_policy(policy(), examples(), inputs(Synthetic()), settings=QUICK) == lock


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signed", "said"), [(True, "tells the positive examples of"), (False, "is more active on the positive")]
)
def test_a_concept_that_no_feature_follows_is_an_error(signed, said):
    class Silent(Synthetic):
        def _one(self, text):
            rows, residuals = super()._one(text)
            return rows * 0, residuals

    with pytest.raises(PolicyError, match=f"no feature of this dictionary {said}"):
        fit_policy(policy(), examples(), inputs(Silent()), settings=replace(QUICK, signed=signed))


def test_pinned_features_get_thresholds_only():
    pinned = policy(
        concept=None, features=[{"index": 4}, {"index": 17}], suppress={"target": -1.0, "features": [4]}
    )
    lock = fit_policy(pinned, (), inputs(Synthetic()))
    assert lock.card is None
    assert lock.features == []
    assert 0 < lock.rules["stated"].benign_rate <= 0.02
