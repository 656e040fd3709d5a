"""Detectors give every token of a text a score: weighted features, a linear probe, both, or an anomaly signal.

Features and probes are learnt here from labelled rows; a policy may also name them itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from monitor.policy.files.probe_weights import read_weights
from monitor.policy.fit.choice import DetectorChoice
from monitor.policy.fit.feature_selection import SIZES, candidates_of, ranked
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices, TextReadings
from monitor.policy.fit.rows import FitRows
from monitor.policy.fit.weights import DENSE, SPARSE, logistic, weigh
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

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores `[tokens]` of each of the texts `which`."""
        taken = read.tokens.take(which)
        every = np.zeros(taken.matrix.shape[1])
        every[self.indices] = self.weights
        return np.split(np.asarray(taken.matrix @ every, np.float64), taken.starts[1:-1])


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
class CombinedDetector:
    """Features and a probe: a token's score is the sum of the two."""

    features: FeatureDetector
    probe: ProbeDetector

    def tokens(self, read: TextReadings, which: Indices) -> list[Floats]:
        """Token scores `[tokens]` of each of the texts `which`."""
        both = zip(self.features.tokens(read, which), self.probe.tokens(read, which), strict=True)
        return [one + other for one, other in both]


LearntKind = FeatureDetector | ProbeDetector | CombinedDetector
"""What a fit can learn."""


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
    return FeatureDetector(indices, np.asarray([pin.weight for pin in pins]))


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
    """Largest number of features of a detector that may run."""
    seed: int
    signed: bool
    """Whether a feature may have a negative weight."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of features that are tried, and may be chosen: those below the limit, and the limit."""
        return (*(size for size in SIZES if size < self.limit), self.limit)


@dataclass(frozen=True)
class LearntDetectors:
    """All detectors that were learnt from the same rows."""

    features: dict[int, FeatureDetector]
    """By the number of features. Those of a smaller one are among those of a larger one."""
    probe: ProbeDetector
    spreads: dict[int, tuple[float, float]]
    """By the number of features, the spreads of the features' and of the probe's scores on negatives."""

    def detector(self, choice: DetectorChoice) -> LearntKind:
        """The one that was chosen."""
        if choice.kind == "probe":
            return self.probe
        features = self.features[choice.size]
        if choice.kind == "features" or not len(features.indices):
            return features
        return combined(features, self.probe, self.spreads[choice.size], choice.share)


def learn(rows: FitRows, which: Indices, recipe: Recipe, sizes: Sequence[int]) -> LearntDetectors:
    """Detectors of every kind, learnt from the rows `which`; of features for each of the `sizes`."""
    features, probe = learn_features(rows, which, recipe, sizes), learn_probe(rows, which, recipe)
    calm, how = which[rows.positive[which] == 0], recipe.poolings[0]

    def spread(detector: Detector) -> float:
        return float(how.score(detector.tokens(rows.read, calm)).std() + 1e-9)

    of_probe = spread(probe)
    return LearntDetectors(
        features, probe, {size: (spread(features[size]), of_probe) for size in recipe.sizes}
    )


def learn_features(
    rows: FitRows, which: Indices, recipe: Recipe, sizes: Sequence[int]
) -> dict[int, FeatureDetector]:
    """Detectors of so many features each, learnt from the rows `which`.

    One has fewer features than its number says where no more are of use, and none at all where no feature tells
    positives from negatives.
    """
    means = rows.read.feature_means[which]
    growing = sorted(set(sizes))
    order = ranked(means, rows.positive[which], rows.importance[which], growing, signed=recipe.signed)
    return {size: _useful(weighted(rows, which, recipe, order[:size])) for size in growing}


def learn_all_features(rows: FitRows, which: Indices, recipe: Recipe) -> FeatureDetector:
    """A detector of every feature that is active in a few of the rows `which`: the most that weighted features can do.

    Its weights are learnt from mean readings alone.
    """
    means = rows.read.feature_means[which]
    active = candidates_of(means, rows.positive[which], recipe.signed)
    weights, _ = logistic(
        means[:, active].toarray(), rows.positive[which], rows.importance[which], recipe.signed, SPARSE
    )
    return FeatureDetector(active, weights / (np.abs(weights).max(initial=0.0) + 1e-12))


def weighted(rows: FitRows, which: Indices, recipe: Recipe, features: Indices) -> FeatureDetector:
    """Given `features`, with weights learnt from the rows `which`."""
    if not len(features):
        return FeatureDetector(features, np.zeros(0))
    texts = rows.read.tokens.take(which).columns(features)
    y, importance = rows.positive[which], rows.importance[which]
    return FeatureDetector(features, weigh(texts, y, importance, recipe.poolings[0], recipe.signed, SPARSE))


def _useful(found: FeatureDetector) -> FeatureDetector:
    kept = np.abs(found.weights) > SLIGHT
    return FeatureDetector(found.indices[kept], found.weights[kept])


def learn_probe(rows: FitRows, which: Indices, recipe: Recipe) -> ProbeDetector:
    """A probe learnt from the rows `which`, to be read at every token and pooled as the first rule pools.

    For learning, residuals are standardised by the mean and deviation of the texts' mean residuals. The probe that
    is returned reads residuals as they are. It scores 0 at their mean, and its strongest token seen scores 1 or -1.
    """
    means = rows.read.means[which]
    centre, scale = means.mean(axis=0), means.std(axis=0) + 1e-6
    texts = [((rows.read.residual(int(i)) - centre) / scale).astype(np.float32) for i in which]
    y, importance = rows.positive[which], rows.importance[which]
    weights = weigh(texts, y, importance, recipe.poolings[0], True, DENSE)
    strongest = max((float(np.abs(text @ weights).max()) for text in texts if len(text)), default=1.0)
    return ProbeDetector(weights / scale, float(-(weights / scale) @ centre), max(strongest, 1e-9))


def combined(
    features: FeatureDetector, probe: ProbeDetector, spreads: tuple[float, float], share: float
) -> CombinedDetector:
    """Both detectors as one, to which the probe contributes `share` and the features the rest.

    `spreads` are those of the two detectors' pooled scores on negatives, so that a share means the same for any two.
    """
    ratio = share / (1.0 - share) * spreads[0] / max(spreads[1], 1e-12)
    return CombinedDetector(
        features, ProbeDetector(probe.weights, probe.bias, probe.scale / max(ratio, 1e-12))
    )
