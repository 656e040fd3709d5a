"""Ranking of features by how well their pooled activations separate two sets of texts."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.explore.auroc import auroc
from monitor.dictionary.explore.text_pooling import PooledTexts


class TextPooling(enum.StrEnum):
    """How a feature's activations over the tokens of a text become one number: their maximum or their mean."""

    MAX = "max"
    MEAN = "mean"


@dataclass(frozen=True)
class FeatureContrast:
    """How well one feature separates the two sets."""

    feature: int
    auroc: float
    """Probability that a positive text has a higher value than a negative one. Below 0.5, negatives have the higher."""
    low: float
    high: float
    """`low` to `high` is the 95 % interval of this AUROC, without a correction for comparing many features."""
    fires_positive: float
    """Share of positive texts with at least one token at which the feature is active."""
    fires_negative: float
    """Share of negative texts, likewise."""


def readings(pooled: PooledTexts, how: TextPooling) -> Tensor:
    """The pooled activations `[texts, features]`: maxima or means, as `how` says."""
    return pooled.maximum if how is TextPooling.MAX else pooled.mean


def contrast(
    pooled: PooledTexts, labels: Sequence[bool], how: TextPooling, *, both_ways: bool = False
) -> list[FeatureContrast]:
    """Rank all features by AUROC, or, with `both_ways`, by the distance of their AUROC from 0.5.

    `labels` says for each text whether it is positive. Features that fire on none of the texts have an AUROC of 0.5.
    Raises ValueError where one of the sets has fewer than two texts.
    """
    positive = torch.tensor(labels, dtype=torch.bool)
    values = readings(pooled, how)
    found = auroc(values[positive], values[~positive])
    fires = pooled.maximum > 0
    fires_positive, fires_negative = fires[positive].float().mean(0), fires[~positive].float().mean(0)
    key = (found.value - 0.5).abs() if both_ways else found.value
    return [
        FeatureContrast(
            feature,
            float(found.value[feature]),
            float(found.low[feature]),
            float(found.high[feature]),
            float(fires_positive[feature]),
            float(fires_negative[feature]),
        )
        for feature in key.argsort(descending=True, stable=True).tolist()
    ]
