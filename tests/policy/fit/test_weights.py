"""Weights minimise the loss that their docstring states."""

import numpy as np

from monitor.policy.fit.weights import logistic


def test_logistic_weights_minimise_the_loss_they_claim():
    rng = np.random.default_rng(4)
    x = rng.exponential(1.0, (200, 3))
    y = (x[:, 0] - x[:, 1] + rng.normal(0, 0.5, 200) > 0).astype(int)
    weights = logistic(x, y, np.ones(200))
    assert weights[0] > 0.3
    assert weights[1] == 0
    assert (weights >= 0).all()
