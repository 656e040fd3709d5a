"""Learns weights of given inputs (features, or dimensions of the residual) so that a rule's pooled score separates.

Each round finds the weight α of every token in the pooled score (see `pooling`), and fits a logistic regression to the
α-weighted sums of the tokens' readings.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from monitor.policy.fit.pooling import RulePooling, attention
from monitor.policy.fit.readings import Floats, Indices

ROUNDS = 4
"""Number of rounds. Each moves the weights halfway to those of its regression."""
RIDGE = 0.02
"""The ridge penalty λ of `logistic`."""


def weigh(texts: list[Floats], y: Indices, importance: Floats, how: RulePooling, signed: bool) -> Floats:
    """Weights `[inputs]` from readings `[tokens, inputs]` per text, scaled so that the largest absolute weight is 1.

    `y` is 0 or 1 and `importance` a weight for each text. Unless `signed`, no weight is negative, so that no other
    content of a text can keep the rule from firing.
    """
    x = np.stack([text.mean(axis=0) if len(text) else np.zeros(text.shape[1]) for text in texts])
    weights = logistic(x, y, importance, signed)
    for _ in range(ROUNDS):
        x = np.stack([attention(text @ weights, how.pooling, how.hold) @ text for text in texts])
        weights = 0.5 * weights / (np.abs(weights).sum() + 1e-12)
        found = logistic(x, y, importance, signed)
        weights = weights + 0.5 * found / (np.abs(found).sum() + 1e-12)
    return np.asarray(weights / (np.abs(weights).max() + 1e-12))


def logistic(x: Floats, y: Indices, importance: Floats, signed: bool = False) -> Floats:
    """Weights `[inputs]` of a ridge logistic regression on `x` `[texts, inputs]`, with an intercept.

    Minimises Σ_n c_n · log(1 + exp(−(2y_n − 1)(w·x_n/σ + b))) + λ|w|², with w ≥ 0 unless `signed`, and returns w/σ.
    The costs c are the importances, scaled so that both classes count the same.
    """
    scale = x.std(axis=0) + 1e-6
    z, sign = x / scale, 2.0 * y - 1.0
    cost = importance.astype(np.float64).copy()
    for label in (0, 1):
        cost[y == label] /= max(2.0 * float(cost[y == label].sum()), 1e-12)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (z @ weights + bias)
        pull = -cost * sign * expit(-margin)
        value = float(cost @ np.logaddexp(0.0, -margin) + RIDGE * weights @ weights)
        return value, np.append(z.T @ pull + 2.0 * RIDGE * weights, pull.sum())

    start = np.append(np.full(x.shape[1], 0.1), 0.0)
    least = None if signed else 0.0
    bounds = [(least, None)] * x.shape[1] + [(None, None)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200})
    return np.asarray(found.x[:-1] / scale)
