"""Weights minimise the loss that their docstring states."""

import numpy as np
import pytest

from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.weights import DENSE, SPARSE, Penalty, costs, logistic, scales, weigh
from monitor.policy.schema.policy import Ema, Max, TopKMean


@pytest.mark.parametrize("signed", [True, False])
def test_logistic_weights_minimise_the_loss_they_claim(signed):
    rng = np.random.default_rng(4)
    x = rng.exponential(1.0, (200, 3))
    y = (x[:, 0] - x[:, 1] + rng.normal(0, 0.5, 200) > 0).astype(int)
    importance = rng.uniform(0.5, 1.5, 200)
    weights, bias = logistic(x, y, importance, signed)
    assert weights[0] > 0.3
    assert weights[1] < -0.1 if signed else weights[1] == 0
    spread, cost = x.std(axis=0) + 1e-6, costs(y, importance)

    def loss(found, middle):
        margin = (2.0 * y - 1.0) * (x @ found + middle)
        return cost @ np.log1p(np.exp(-margin)) + DENSE.ridge * np.square(found * spread).sum()

    least = loss(weights, bias)
    for _ in range(50):
        other = weights + rng.normal(0, 0.05, 3)
        assert loss(other if signed else np.maximum(other, 0), bias + rng.normal(0, 0.05)) >= least - 1e-9


def test_both_classes_count_the_same():
    cost = costs(np.asarray([1, 0, 0, 0]), np.asarray([2.0, 1.0, 1.0, 2.0]))
    assert cost.tolist() == [0.5, 0.125, 0.125, 0.25]


def test_a_rare_feature_does_not_get_the_weight_of_its_rarity():
    """One of two features is active in few texts. Scaled by its spread it would weigh many times as much."""
    rng = np.random.default_rng(1)
    y = np.arange(400) % 2
    often = (rng.random(400) < 0.5) * 0.5 + 0.3 * y
    rare = (rng.random(400) < 0.02) * (y == 1) * 0.5
    x = np.stack([often, rare], axis=1)
    by_spread, by_root = (logistic(x, y, np.ones(400), True, Penalty(0.1, power))[0] for power in (1.0, 0.5))
    assert by_root[1] / by_root[0] < 0.5 * by_spread[1] / by_spread[0]
    np.testing.assert_allclose(scales(np.asarray([1.0, 4.0, 16.0]), SPARSE.power), [2.0, 4.0, 8.0], rtol=1e-5)


@pytest.mark.parametrize("pooling", [Ema(half_life=4), Max(), TopKMean(k=3)])
def test_weights_find_what_separates_in_pooled_scores(pooling):
    rng = np.random.default_rng(2)
    texts = []
    for n in range(120):
        rows = rng.normal(0, 0.3, (int(rng.integers(4, 20)), 5))
        rows[rng.integers(len(rows)), 3] += 3.0 * (n % 2)
        texts.append(rows)
    texts[0] = texts[0][:0]
    found = weigh(texts, np.arange(120) % 2, np.ones(120), RulePooling(pooling), signed=True)
    assert found[3] == pytest.approx(1.0)
    assert np.abs(np.delete(found, 3)).max() < 0.5
