"""Features against a probe: what is measured, which one runs, and anomaly rules."""

import numpy as np
import pytest

from monitor.policy.fit import FitSettings, ProbeDetector, fit_policy
from monitor.policy.schema.policy import ProbeModel
from tests.policy.fit.test_fit import fires
from tests.policy.synthetic import QUICK, WIDTH, Synthetic, examples, inputs, policy

METHODS = {"linear_probe", "difference_of_means", "bag_of_words", "random_features"}


def settings(detector):
    return FitSettings(features=8, rounds=6, detector=detector)


@pytest.fixture(scope="module")
def dull():
    """Features that say little, residuals that say much."""
    return Synthetic(strength=0.03, leaning=2.0)


@pytest.mark.slow
def test_auto_takes_a_clearly_better_probe_and_the_note_of_features_says_so(dull):
    auto = fit_policy(policy(), examples(), inputs(dull), settings=settings("auto"))
    assert auto.detector == auto.card.detector == "probe"
    assert set(auto.card.methods) == METHODS | {"policy", "features"}
    assert auto.features == []
    stayed = fit_policy(policy(), examples(), inputs(dull), settings=settings("features"))
    assert stayed.detector == "features"
    assert set(stayed.card.methods) == METHODS | {"policy", "probe"}
    assert "--detector probe" in stayed.card.note
    assert auto.card.methods["policy"] == stayed.card.methods["probe"]


@pytest.mark.slow
def test_auto_keeps_features_where_the_probe_is_no_better():
    lock = fit_policy(policy(), examples(), inputs(Synthetic(leaning=0.0)), settings=settings("auto"))
    assert lock.detector == "features"
    assert lock.probe is None
    assert "--detector probe" not in lock.card.note


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
    few = FitSettings(features=4, rounds=6, seed=1)
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
