"""How well scores separate positives from negatives, with intervals from resampling groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from monitor.policy.files.lock import CURVE, Difference, Separation
from monitor.policy.fit.readings import Floats, Indices

RATE = 0.01
"""The false-positive rate at which recall is stated."""
RESAMPLES = 300
"""Resamples of the groups that give an interval."""
INTERVAL = (0.025, 0.975)


def auroc(positive: Floats, negative: Floats) -> float:
    """Probability that a positive scores above a negative, ties counting half; 0.5 where either is missing.

    Computed from ranks (Mann-Whitney U).
    """
    if not len(positive) or not len(negative):
        return 0.5
    ranks = rankdata(np.concatenate([positive, negative]))[: len(positive)]
    wins = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def threshold_at(negative: Floats, rate: float) -> float:
    """The threshold that at most the share `rate` of the negatives reaches, midway between two of their scores."""
    ranked = np.sort(negative)[::-1]
    below = ranked[int(np.floor(rate * len(ranked)))]
    above = ranked[ranked > below]
    return float((above[-1] + below) / 2 if len(above) else below + 0.05 * abs(below) + 1e-9)


@dataclass(frozen=True)
class Truth:
    """Labels and groups of the texts that are measured. Every array is `[texts]`."""

    positive: Indices
    """1 where the text shows the concept, else 0."""
    own: Indices
    """1 for the policy's examples, 0 for benign texts."""
    hard: Indices
    """1 for hard negatives: benign look-alikes."""
    groups: Indices
    """An integer per group; resampling draws whole groups."""


@dataclass(frozen=True)
class ResampledSeparation:
    """The separation of one method, and its value in every resample."""

    measure: Separation
    draws: Floats
    """`[resamples, 3]`: AUROC, recall, and AUROC against look-alikes."""


def curve(positive: Floats, benign: Floats) -> list[float]:
    """Recall at each false-positive rate of `CURVE`."""
    limits = [threshold_at(benign, rate) if rate < 1 else -np.inf for rate in CURVE]
    return [float((positive >= limit).mean()) for limit in limits]


def measure_all(methods: dict[str, Floats], truth: Truth, seed: int) -> dict[str, ResampledSeparation]:
    """Measure methods, given their scores `[texts]`, with 95 % intervals.

    All methods are measured on the same resamples of groups, so that they can be compared.
    """
    draws = resampled(truth.groups, seed, RESAMPLES)
    return {name: _measured(scores, truth, draws) for name, scores in methods.items()}


def difference(one: ResampledSeparation, other: ResampledSeparation) -> Difference:
    """The first method minus the second, on the same resamples."""
    low, high = np.quantile(one.draws - other.draws, INTERVAL, axis=0)
    return Difference(
        auroc=one.measure.auroc - other.measure.auroc,
        auroc_low=float(low[0]),
        auroc_high=float(high[0]),
        recall=one.measure.recall - other.measure.recall,
        recall_low=float(low[1]),
        recall_high=float(high[1]),
    )


def resampled(groups: Indices, seed: int, count: int) -> list[Indices]:
    """So many resamples of rows, drawn by whole groups; `groups` `[rows]` are integers."""
    rng = np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    return [
        np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        for _ in range(count)
    ]


def _measured(scores: Floats, truth: Truth, draws: list[Indices]) -> ResampledSeparation:
    point = _three(scores, truth, np.arange(len(scores)))
    drawn = np.asarray([_three(scores, truth, rows) for rows in draws])
    low, high = np.quantile(drawn, INTERVAL, axis=0)
    yes = (truth.own == 1) & (truth.positive == 1)
    low[1], high[1] = _widened(point[1], low[1], high[1], len(np.unique(truth.groups[yes])))
    looks = bool(truth.hard.any())
    found = Separation(
        auroc=point[0],
        auroc_low=low[0],
        auroc_high=high[0],
        recall=point[1],
        recall_low=low[1],
        recall_high=high[1],
        hard_auroc=point[2] if looks else None,
        hard_auroc_low=low[2] if looks else None,
        hard_auroc_high=high[2] if looks else None,
    )
    return ResampledSeparation(found, drawn)


def _widened(share: float, low: float, high: float, groups: int) -> tuple[float, float]:
    """The interval of a share, widened where the share is 0 or 1.

    There resampling gives a single point. The exact interval for so many independent groups (Clopper and Pearson,
    1934) holds instead, on the side that is open.
    """
    beyond = 1 - (1 - INTERVAL[1]) ** (1 / max(groups, 1))
    if share == 0:
        return low, max(high, beyond)
    return (min(low, 1 - beyond), high) if share == 1 else (low, high)


def _three(scores: Floats, truth: Truth, rows: Indices) -> tuple[float, float, float]:
    value, own, positive = scores[rows], truth.own[rows] == 1, truth.positive[rows] == 1
    yes, benign = value[own & positive], value[~own]
    area = auroc(yes, value[own & ~positive])
    recall = float((yes >= threshold_at(benign, RATE)).mean()) if len(yes) and len(benign) else 0.0
    return area, recall, auroc(yes, value[truth.hard[rows] == 1])
