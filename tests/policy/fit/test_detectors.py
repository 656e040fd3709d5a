"""Features against a probe: what is measured, which one runs, and anomaly rules."""

import numpy as np
import pytest

from monitor.policy.fit import FitSettings, ProbeDetector, fit_policy
from monitor.policy.fit.detectors import FeatureDetector, combined
from monitor.policy.schema.policy import ProbeModel
from tests.policy.fit.test_fit import fires
from tests.policy.synthetic import CAUSAL, CONCEPT, QUICK, WIDTH, Synthetic, examples, inputs, policy

LEARNT = {"policy", "features", "probe", "combined"}
METHODS = {"linear_probe", "difference_of_means", "bag_of_words", "random_features"}


def settings(detector):
    return FitSettings(features=8, detector=detector)


@pytest.fixture(scope="module")
def dull():
    """Features that say little, residuals that say much."""
    return Synthetic(strength=0.03, leaning=2.0)


@pytest.mark.slow
def test_a_probe_is_taken_where_only_the_residual_separates_and_the_note_of_features_says_so(dull):
    auto = fit_policy(policy(), examples(), inputs(dull), settings=settings("auto"))
    assert auto.detector == auto.card.detector == "probe"
    assert set(auto.card.methods) == METHODS | LEARNT
    assert auto.features == []
    stayed = fit_policy(policy(), examples(), inputs(dull), settings=settings("features"))
    assert stayed.detector == "features"
    assert set(stayed.card.methods) == METHODS | LEARNT
    assert "A probe is clearly better" in stayed.card.note
    assert auto.card.methods["policy"] == stayed.card.methods["probe"]
    assert stayed.card.methods["policy"] == stayed.card.methods["features"]


@pytest.mark.slow
def test_features_are_taken_where_the_probe_is_no_better():
    lock = fit_policy(policy(), examples(), inputs(Synthetic(leaning=0.0)), settings=settings("auto"))
    assert lock.detector == "features"
    assert lock.probe is None
    assert lock.explain == []
    assert lock.card.explained is None
    assert "A probe is clearly better" not in lock.card.note


@pytest.mark.slow
def test_both_are_taken_where_each_sees_what_the_other_does_not():
    lock = fit_policy(policy(), examples(), inputs(Halves()), settings=settings("auto"))
    assert lock.detector == "combined"
    assert lock.features
    assert lock.probe is not None
    measures = lock.card.methods
    assert measures["policy"].recall > max(measures["features"].recall, measures["probe"].recall)


class Halves(Synthetic):
    """Positives with even numbers show in features alone, the others in the residual alone."""

    def _one(self, text):
        rows, residual = super()._one(text)
        kind, number = text.split()
        if kind == "yes" and int(number) % 2:
            rows[:, [*CONCEPT, CAUSAL]] = 0
            residual = residual + 2.0
        elif kind == "yes":
            residual = residual - self.leaning
        return rows, residual


def test_both_combined_score_as_their_shares_say():
    reader = Synthetic()
    read, which = reader.read([f"yes {i}" for i in range(9)]), np.arange(9)
    features = FeatureDetector(np.asarray([4, 17]), np.asarray([1.0, -0.5]))
    probe = ProbeDetector(np.arange(8.0), 0.5, 2.0)
    found = combined(features, probe, (3.0, 0.5), 0.25).tokens(read, which)
    for both, one, other in zip(found, features.tokens(read, which), probe.tokens(read, which), strict=True):
        np.testing.assert_allclose(both / 3.0 * 0.75, 0.75 * one / 3.0 + 0.25 * other / 0.5, rtol=1e-9)


@pytest.mark.slow
def test_a_probe_is_explained_by_the_features_that_add_to_it(dull):
    lock = fit_policy(policy(), examples(), inputs(Leaning()), settings=settings("probe"))
    assert {one.index for one in lock.explain} <= set(CONCEPT), "no other feature adds to any direction"
    assert all(one.weight > 0 and one.maximum == 2.0 and one.label for one in lock.explain)
    assert lock.card.explained.named == pytest.approx(1.0)
    assert lock.card.explained.correlation > 0.3
    strongest = max(lock.explain, key=lambda one: one.weight)
    assert strongest.weight == pytest.approx(np.abs(lock.probe.weights).sum() / lock.probe.scale)


class Leaning(Synthetic):
    """The residual is what the features of the concept add up to, and noise."""

    def _one(self, text):
        rows, residual = super()._one(text)
        return rows, 0.3 * residual + rows[:, CONCEPT].sum(axis=1, keepdims=True)


@pytest.mark.slow
def test_a_locked_probe_catches_and_keeps_its_rate(dull):
    made = policy(concept={"examples": "p.examples.jsonl", "detector": "probe"})
    lock = fit_policy(made, examples(), inputs(dull, aside=300), settings=QUICK)
    probe = ProbeDetector(np.array(lock.probe.weights), lock.probe.bias, lock.probe.scale)
    benign = dull.read([f"benign {i}" for i in range(10_000, 10_600)])
    hits = dull.read([f"yes {i}" for i in range(10_000, 10_200)])
    rule = lock.rules["stated"]
    for read, low, high in ((benign, 0.0, 0.05), (hits, 0.8, 1.0)):
        scores = probe.tokens(read, np.arange(len(read)))
        assert low <= np.mean([fires(s, rule) for s in scores]) <= high
    assert rule.caught > 0.8
    assert max(np.abs(np.concatenate(probe.tokens(hits, np.arange(200))))) < 3


@pytest.mark.slow
def test_large_probes_go_where_the_store_puts_them(dull):
    kept = []

    def store(probe):
        kept.append(probe)
        return ProbeModel(weights_file="p.probe.safetensors", digest="sha256:" + "a" * 64)

    lock = fit_policy(policy(), examples(), inputs(dull), settings=settings("probe"), store=store)
    assert len(kept) == 1
    assert len(kept[0].weights) == WIDTH
    assert lock.probe.weights_file == "p.probe.safetensors"


@pytest.mark.slow
def test_random_features_are_worse_than_chosen_ones():
    few = FitSettings(features=4, seed=1, detector="features")
    card = fit_policy(policy(), examples(), inputs(Synthetic(strength=0.8)), settings=few).card
    assert card.methods["random_features"].auroc_high < card.methods["policy"].auroc_low
    assert card.methods["policy"].hard_auroc > 0.95


def test_anomaly_rules_are_calibrated_like_others():
    rule = {"name": "odd", "signal": "residual_norm", "threshold": {"false_positive_rate": 0.05}}
    made = policy(rules=[rule], concept=None, suppress=None)
    reader = Synthetic()
    lock = fit_policy(made, (), inputs(reader, texts=400))
    odd = lock.rules["odd"]
    assert (odd.signal, odd.asked_rate, odd.benign_texts) == ("residual_norm", 0.05, 400)
    assert 0.01 < odd.benign_rate <= 0.05
    fresh = reader.read([f"benign {i}" for i in range(10_000, 11_000)])
    share = np.mean([fires(s, odd) for s in fresh.signal("residual_norm", np.arange(1000))])
    assert share < 0.09
    assert lock.card is None


@pytest.mark.slow
def test_conditions_have_thresholds_of_their_own():
    rate = {"false_positive_rate": 0.02}
    made = policy(
        rules=[{"name": "both", "when": {"all": ["said", "odd"]}, "action": "alert"}],
        conditions={
            "said": {"pooling": "mean", "threshold": rate},
            "odd": {"signal": "residual_norm", "threshold": rate},
        },
        suppress=None,
    )
    lock = fit_policy(made, examples(), inputs(Synthetic()), settings=QUICK)
    assert lock.rules == {}
    assert set(lock.conditions) == {"said", "odd"}
    assert lock.conditions["said"].caught > 0.5
    assert lock.conditions["odd"].caught is None
