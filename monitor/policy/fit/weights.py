"""Learns weights of given inputs (features, or dimensions of the residual) so that a rule's pooled score separates.

Each round finds the weight α of every token in the pooled score (see `pooling`), and fits a logistic regression to the
α-weighted sums of the tokens' readings.

Features are scaled by the square root of their spread (Pareto scaling, van den Berg et al., 2006). Were they divided by
the spread itself, a feature that few texts activate would get a weight with which a single token of a benign text could
outscore every positive; measured, the recall at 1 % false positives falls by a third and more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import minimize
from scipy.special import expit

from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices

ROUNDS = 4
"""Number of rounds. Each moves the weights halfway to those of its regression."""


@dataclass(frozen=True)
class Penalty:
    """What keeps the weights of a regression small."""

    ridge: float
    """The ridge penalty λ."""
    power: float
    """By which power of their spread inputs are divided before the penalty applies."""


DENSE, SPARSE = Penalty(0.1, 1.0), Penalty(0.3, 0.5)
"""The penalties for dimensions of the residual, and for features. Chosen by the recall at 1 % false positives on
policies of both pairs."""


def weigh(
    texts: list[Floats],
    y: Indices,
    importance: Floats,
    how: RulePooling,
    signed: bool,
    penalty: Penalty = DENSE,
) -> Floats:
    """Weights `[inputs]` from readings `[tokens, inputs]` per text, scaled so that the largest absolute weight is 1.

    `y` is 0 or 1 and `importance` a weight for each text. Unless `signed`, no weight is negative, so that no other
    content of a text can keep the rule from firing.
    """
    every = np.concatenate(texts)
    ends = np.cumsum([len(text) for text in texts])
    starts = np.concatenate([[0], ends]).astype(np.intp)

    def summed(alpha: Floats) -> Floats:
        """`[texts, inputs]`: sums of the tokens' readings, weighted by `alpha` `[tokens]`."""
        table = sparse.csr_matrix((alpha, np.arange(len(alpha)), starts), (len(texts), len(alpha)))
        return np.asarray(table @ every, np.float64)

    lengths = np.diff(starts)
    means = summed(np.repeat(1.0 / np.maximum(lengths, 1), lengths))
    weights = logistic(means, y, importance, signed, penalty)[0]
    for _ in range(ROUNDS):
        x = summed(how.attentions(np.split(every @ weights, ends[:-1])))
        weights = 0.5 * weights / (np.abs(weights).sum() + 1e-12)
        found = logistic(x, y, importance, signed, penalty)[0]
        weights = weights + 0.5 * found / (np.abs(found).sum() + 1e-12)
    return np.asarray(weights / (np.abs(weights).max() + 1e-12))


def logistic(
    x: Floats, y: Indices, importance: Floats, signed: bool = True, penalty: Penalty = DENSE
) -> tuple[Floats, float]:
    """Weights `[inputs]` and intercept of a ridge logistic regression on `x` `[texts, inputs]`.

    Minimises Σ_n c_n · log(1 + exp(−(2y_n − 1)(w·x_n/σ + b))) + λ|w|², with w ≥ 0 unless `signed`, and returns w/σ.
    The costs c are those of `costs`. σ is the inputs' spread to the power of the penalty.
    """
    scale = scales(x.std(axis=0), penalty.power)
    z, sign, cost = x / scale, 2.0 * y - 1.0, costs(y, importance)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, bias = parameters[:-1], parameters[-1]
        margin = sign * (z @ weights + bias)
        pull = -cost * sign * expit(-margin)
        value = float(cost @ np.logaddexp(0.0, -margin) + penalty.ridge * weights @ weights)
        return value, np.append(z.T @ pull + 2.0 * penalty.ridge * weights, pull.sum())

    least = None if signed else 0.0
    bounds = [(least, None)] * x.shape[1] + [(None, None)]
    start = np.zeros(x.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200})
    return np.asarray(found.x[:-1] / scale), float(found.x[-1])


def costs(y: Indices, importance: Floats) -> Floats:
    """`[texts]`: the importances, scaled so that both classes count one half."""
    cost = importance.astype(np.float64).copy()
    for label in (0, 1):
        cost[y == label] /= max(2.0 * float(cost[y == label].sum()), 1e-12)
    return cost


def scales(spread: Floats, power: float) -> Floats:
    """`[inputs]`: what inputs of these spreads are divided by, in units of the spread that is in the middle of them."""
    spread = spread + 1e-6
    middle = float(np.median(spread)) if len(spread) else 1.0
    return np.asarray(spread**power * middle ** (1.0 - power))
