"""How well scores separate, with intervals from resampling groups.

Knows scores, labels and groups. Does not know what gave the scores.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.lock import Measure

RATE = 0.01
"""The false-positive rate at which recall is stated."""
RESAMPLES = 300


def auroc(positive: Floats, negative: Floats) -> float:
    """Probability that a positive scores above a negative, ties counting half (Mann-Whitney U)."""
    if not len(positive) or not len(negative):
        return 0.5
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    wins = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def threshold_at(negative: Floats, rate: float) -> float:
    """The threshold that at most this share of the negatives reaches: midway between the scores that it parts."""
    ranked = np.sort(negative)[::-1]
    below = ranked[int(np.floor(rate * len(ranked)))]
    above = ranked[ranked > below]
    return float((above[-1] + below) / 2 if len(above) else below + 0.05 * abs(below) + 1e-9)


def measure(scores: Floats, positive: Indices, own: Indices, groups: Indices, seed: int) -> Measure:
    """AUROC among the own examples, and recall where 1 % of the benign texts fire, each with a 95 % interval.

    `scores`, `positive`, `own` (1 for the policy's examples, 0 for benign texts) and `groups` are per text.
    """
    rng = np.random.default_rng(seed)
    names, inverse = np.unique(groups, return_inverse=True)
    members = [np.flatnonzero(inverse == i) for i in range(len(names))]
    everything = np.arange(len(scores))
    draws = [
        np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])
        for _ in range(RESAMPLES)
    ]
    areas = [_area(scores, positive, own, rows) for rows in draws]
    recalls = [_recall(scores, positive, own, rows) for rows in draws]
    return Measure(
        auroc=_area(scores, positive, own, everything),
        auroc_low=float(np.quantile(areas, 0.025)),
        auroc_high=float(np.quantile(areas, 0.975)),
        recall=_recall(scores, positive, own, everything),
        recall_low=float(np.quantile(recalls, 0.025)),
        recall_high=float(np.quantile(recalls, 0.975)),
    )


def _area(scores: Floats, positive: Indices, own: Indices, rows: Indices) -> float:
    mine = rows[own[rows] == 1]
    return auroc(scores[mine[positive[mine] == 1]], scores[mine[positive[mine] == 0]])


def _recall(scores: Floats, positive: Indices, own: Indices, rows: Indices) -> float:
    yes, benign = scores[rows[positive[rows] == 1]], scores[rows[own[rows] == 0]]
    if not len(yes) or not len(benign):
        return 0.0
    return float((yes >= threshold_at(benign, RATE)).mean())
