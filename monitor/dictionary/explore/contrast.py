"""Which features tell one set of texts from another.

Knows how to rank features by how well their pooled activation separates two sets. Does not know the texts.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.explore.auroc import auroc
from monitor.dictionary.explore.text_pooling import Pooled


class Pool(enum.StrEnum):
    """How the tokens of a text make one number per feature."""

    MAX = "max"
    MEAN = "mean"


@dataclass(frozen=True)
class Contrast:
    """How one feature separates the sets."""

    feature: int
    auroc: float
    """Chance that a positive text scores above a negative one; below 0.5 the feature marks the negatives."""
    low: float
    high: float
    """95 % interval of this feature alone; the best of many looks better than it is."""
    fires_positive: float
    """Share of positive texts on which it is active at all."""
    fires_negative: float


def readings(pooled: Pooled, how: Pool) -> Tensor:
    """The pooled numbers `[texts, features]` that `how` names."""
    return pooled.maximum if how is Pool.MAX else pooled.mean


def contrast(pooled: Pooled, labels: Sequence[bool], how: Pool, *, both_ways: bool = False) -> list[Contrast]:
    """Every feature, best first: by AUROC, or by its distance from 0.5 with `both_ways`.

    Features that never fire on these texts stand at the end with 0.5. Raises ValueError where a side has fewer
    than two texts.
    """
    positive = torch.tensor(labels, dtype=torch.bool)
    values = readings(pooled, how)
    found = auroc(values[positive], values[~positive])
    fires = pooled.maximum > 0
    fires_positive, fires_negative = fires[positive].float().mean(0), fires[~positive].float().mean(0)
    key = (found.value - 0.5).abs() if both_ways else found.value
    return [
        Contrast(
            feature,
            float(found.value[feature]),
            float(found.low[feature]),
            float(found.high[feature]),
            float(fires_positive[feature]),
            float(fires_negative[feature]),
        )
        for feature in key.argsort(descending=True, stable=True).tolist()
    ]
