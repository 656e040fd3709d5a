"""Which tokens a pooled score rests on: pooling as a weighted sum of token scores.

For given scores every pooling of a rule is linear, `pooled = Σ_t α_t · s_t` (less an allowance where it has one),
with the α of the moment at which the pooled score was highest. Fitting alternates between α for given weights and
weights for given α, as in multiple-instance learning (Andrews et al., 2002). Does not know features or labels.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from monitor.policy.fit.readings import Floats
from monitor.policy.policy import Pooling
from monitor.policy.rules.pooling import PoolBank
from monitor.policy.schema.policy import Cumulative, Ema, LongestRun, Max, Mean, TopKMean


def pooled(scores: Floats, pooling: Pooling, hold: int) -> float:
    """The highest pooled score of a text with token scores `[tokens]`, as a running rule would see it."""
    if not len(scores):
        return 0.0
    best = course(scores, pooling, hold).max()
    return float(best) if np.isfinite(best) else 0.0


def course(scores: Floats, pooling: Pooling, hold: int) -> Floats:
    """The pooled score after each token `[tokens]`; a moving average goes through a filter, which is faster."""
    if isinstance(pooling, Ema) and hold == 1:
        keep = 2.0 ** (-1.0 / pooling.half_life)
        return np.asarray(lfilter([1.0 - keep], [1.0, -keep], scores))
    return PoolBank([pooling], [hold]).push(scores[:, None])[:, 0]


def attention(scores: Floats, pooling: Pooling, hold: int) -> Floats:
    """α `[tokens]` for the token scores of one text."""
    alpha = np.zeros(len(scores))
    if not len(scores):
        return alpha
    if isinstance(pooling, TopKMean):
        alpha[np.argsort(-scores, kind="stable")[: pooling.k]] = 1.0 / pooling.k
        return alpha
    end = int(np.argmax(course(scores, pooling, hold)))
    if isinstance(pooling, Mean):
        alpha[: end + 1] = 1.0 / max(end + 1, pooling.min_tokens)
    elif isinstance(pooling, Ema):
        keep = 2.0 ** (-1.0 / pooling.half_life)
        alpha[: end + 1] = (1.0 - keep) * keep ** np.arange(end, -1, -1)
    elif isinstance(pooling, Cumulative):
        empty = np.flatnonzero(course(scores, pooling, 1)[: end + 1] <= 0)
        alpha[int(empty[-1]) + 1 if len(empty) else 0 : end + 1] = 1.0
    else:
        width = hold if isinstance(pooling, Max) else _run(scores, pooling, end)
        alpha[max(0, end + 1 - width) : end + 1] = 1.0 / width
    return alpha


def _run(scores: Floats, pooling: LongestRun, end: int) -> int:
    below = np.flatnonzero(scores[: end + 1] < pooling.level)
    return max(1, end - int(below[-1]) if len(below) else end + 1)
