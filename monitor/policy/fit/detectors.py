"""Detectors give every token of a text a score: weighted features, a linear probe, or an anomaly signal.

Features and probes are learnt here from labelled rows; a policy may also name them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from monitor.policy.files.probe_weights import read_weights
from monitor.policy.fit.feature_selection import select
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices, TextReadings
from monitor.policy.fit.rows import FitRows
from monitor.policy.fit.weights import weigh
from monitor.policy.schema.policy import CheckModel, Pin, ProbeModel

SLIGHT = 1e-3
"""Learnt features whose weight is below this share of the largest are dropped."""


class Detector(Protocol):
    """Scores tokens."""

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores `[tokens]` of each of the texts `which`."""


@dataclass(frozen=True)
class FeatureDetector:
    """Features with weights: a token's score is `readings @ weights`. All arrays are `[features]`."""

    indices: Indices
    weights: Floats
    stability: Floats
    """`[features]`: share of the random halves of the examples that chose the feature."""

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores `[tokens]` of each of the texts `which`."""
        return [text @ self.weights for text in read.tokens.take(which).columns(self.indices)]


@dataclass(frozen=True)
class ProbeDetector:
    """A direction of the residual stream: a token's score is `(residual @ weights + bias) / scale`."""

    weights: Floats
    """`[d_model]`"""
    bias: float
    scale: float = 1.0
    """What `residual @ weights + bias` is divided by, so that a score of 1 is a strong token."""

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores `[tokens]` of each of the texts `which`."""
        return [(read.residual(int(i)) @ self.weights + self.bias) / self.scale for i in which]


@dataclass(frozen=True)
class SignalDetector:
    """An anomaly signal: a token's score is the value of the signal."""

    name: str
    """`residual_norm` or `reconstruction_error`."""

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Signal values `[tokens]` of each of the texts `which`."""
        return read.signal(self.name, which)


def pinned_features(pins: Sequence[Pin]) -> FeatureDetector:
    """The features that a policy pins."""
    indices = np.asarray([pin.index for pin in pins], np.intp)
    return FeatureDetector(indices, np.asarray([pin.weight for pin in pins]), np.ones(len(pins)))


def probe_detector(probe: ProbeModel, folder: Path) -> ProbeDetector:
    """The probe of a policy or a lock, with its weights; `folder` holds their file. ValueError as `read_weights`."""
    return ProbeDetector(np.asarray(read_weights(probe, folder)), probe.bias, probe.scale)


def own_detector(check: CheckModel) -> SignalDetector | FeatureDetector | None:
    """The detector of the features or the signal that a rule or condition names; None where it names neither."""
    if check.features is not None:
        return pinned_features(check.features)
    return SignalDetector(str(check.signal)) if check.signal is not None else None


@dataclass(frozen=True)
class Recipe:
    """How a detector is learnt."""

    poolings: tuple[RulePooling, ...]
    """The pooling of each rule and condition that reads this detector. Weights are learnt for the first."""
    limit: int
    """Largest number of features of a detector."""
    rounds: int
    """Number of random halves of the groups, in stability selection."""
    seed: int
    signed: bool
    """Whether a feature may have a negative weight."""


def learn_features(rows: FitRows, which: Indices, recipe: Recipe) -> FeatureDetector:
    """Features and weights learnt from the rows `which`; no features where `select` finds none."""
    features, stability = select(
        rows.read.tokens.take(which).means(),
        rows.positive[which],
        rows.groups[which],
        limit=recipe.limit,
        rounds=recipe.rounds,
        seed=recipe.seed,
        signed=recipe.signed,
    )
    if not len(features):
        return FeatureDetector(features, stability, stability)
    found = weighted(rows, which, recipe, features)
    useful = np.abs(found.weights) > SLIGHT
    return FeatureDetector(features[useful], found.weights[useful], stability[useful])


def weighted(rows: FitRows, which: Indices, recipe: Recipe, features: Indices) -> FeatureDetector:
    """Given `features`, with weights learnt from the rows `which`."""
    texts = rows.read.tokens.take(which).columns(features)
    weights = weigh(texts, rows.positive[which], rows.importance[which], recipe.poolings[0], recipe.signed)
    return FeatureDetector(features, weights, np.ones(len(features)))


def learn_probe(rows: FitRows, which: Indices, recipe: Recipe) -> ProbeDetector:
    """A probe learnt from the rows `which`, to be read at every token and pooled as the first rule pools.

    For learning, residuals are standardised by the mean and deviation of the texts' mean residuals. The probe that
    is returned reads residuals as they are. It scores 0 at their mean, and its strongest token seen scores 1 or -1.
    """
    means = rows.read.means[which]
    centre, scale = means.mean(axis=0), means.std(axis=0) + 1e-6
    texts = [((rows.read.residual(int(i)) - centre) / scale).astype(np.float32) for i in which]
    weights = weigh(texts, rows.positive[which], rows.importance[which], recipe.poolings[0], signed=True)
    strongest = max((float(np.abs(text @ weights).max()) for text in texts if len(text)), default=1.0)
    return ProbeDetector(weights / scale, float(-(weights / scale) @ centre), max(strongest, 1e-9))
