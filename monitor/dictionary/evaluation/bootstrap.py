"""AUROC with an interval from the cluster bootstrap, which resamples whole groups of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
FEW_GROUPS = 8
"""With fewer groups than this, single rows are resampled, since few groups give no useful interval."""


@dataclass(frozen=True)
class AurocInterval:
    """An AUROC and its 95 % interval."""

    value: float
    low: float
    high: float


def auroc_by_group(
    scores: NDArray[np.floating], labels: NDArray[np.bool_], units: NDArray[np.intp], *, seed: int = 0
) -> AurocInterval:
    """AUROC of `scores` `[rows]`, with the percentile interval over `RESAMPLES` resamples of whole groups.

    Rows with the same number in `units` `[rows]` form a group and are drawn together (Field & Welsh, 2007). Resamples
    that lack one of the classes are left out. Where the AUROC is exactly 0 or 1, all resamples agree, and percentiles
    would give an interval of width 0. The inner end is then the exact binomial bound for n independent pairs, where n
    is the smaller of the two classes' numbers of groups.
    """
    _, group = np.unique(units, return_inverse=True)
    if group.max() + 1 < FEW_GROUPS:
        group = np.arange(len(labels))
    value = float(weighted_auroc(scores, labels, np.ones((1, len(labels))))[0])
    draws = np.random.default_rng(seed).multinomial(
        group.max() + 1, np.full(group.max() + 1, 1 / (group.max() + 1)), size=RESAMPLES
    )
    resampled = weighted_auroc(scores, labels, draws[:, group].astype(np.float64))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    if value in (0.0, 1.0):
        pairs = min(len(set(group[labels])), len(set(group[~labels])))
        edge = 1 - 0.025 ** (1 / pairs)
        low, high = max(0.0, value - edge), min(1.0, value + edge)
    return AurocInterval(value, float(low), float(high))


def weighted_auroc(
    scores: NDArray[np.floating], labels: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """AUROC `[draws]` with row weights `[draws, rows]`; ties count half; NaN where a class has no weight."""
    order = np.argsort(scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    positive = np.add.reduceat(weights[:, order] * labels[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~labels[order], starts, axis=1)
    below = negative.cumsum(1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(1) / np.where(pairs > 0, pairs, np.nan))
