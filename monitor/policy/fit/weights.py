"""Weights of the chosen features, so that the pooled score of a running rule separates.

Alternates between the tokens that a pooled score rests on and a logistic regression on the readings of those tokens.
Weights can be kept from going negative: a rule then cannot be talked out of firing by other content.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from monitor.policy.fit.attention import attention, course, pooled
from monitor.policy.fit.lengths import EDGES, Reached, reach
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.policy import Pooling

ROUNDS = 4
RIDGE = 0.02


@dataclass(frozen=True)
class Pooled:
    """How a rule makes one number of a text's token scores."""

    pooling: Pooling
    hold: int = 1

    def score(self, texts: Sequence[Floats]) -> Floats:
        """Pooled score of each text, from token scores `[tokens]`."""
        return np.asarray([pooled(scores, self.pooling, self.hold) for scores in texts])

    def course(self, scores: Floats) -> Floats:
        """Pooled score after each token, from token scores `[tokens]`."""
        return course(scores, self.pooling, self.hold)

    def reach(self, texts: Sequence[Floats]) -> Reached:
        """Pooled scores by length, from token scores `[tokens]` per text."""
        return reach([self.course(scores) for scores in texts], EDGES)


def weigh(texts: list[Floats], y: Indices, importance: Floats, how: Pooled, signed: bool) -> Floats:
    """Weights `[features]` for readings `[tokens, features]` per text, labels 0 or 1 and an importance per text."""
    x = np.stack([text.mean(axis=0) if len(text) else np.zeros(text.shape[1]) for text in texts])
    weights = logistic(x, y, importance, signed)
    for _ in range(ROUNDS):
        x = np.stack([attention(text @ weights, how.pooling, how.hold) @ text for text in texts])
        weights = 0.5 * weights / (np.abs(weights).sum() + 1e-12)
        found = logistic(x, y, importance, signed)
        weights = weights + 0.5 * found / (np.abs(found).sum() + 1e-12)
    return np.asarray(weights / (np.abs(weights).max() + 1e-12))


def logistic(x: Floats, y: Indices, importance: Floats, signed: bool = False) -> Floats:
    """Weights (non-negative unless `signed`) of a ridge logistic regression with an intercept, classes balanced.

    Minimises Σ_n c_n · log(1 + exp(−(2y_n − 1)(w·x_n/σ + b))) + λ|w|² subject to w ≥ 0 unless signed; returns w/σ.
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
