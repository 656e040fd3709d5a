"""The choice of a detector by texts that it did not learn from: features, a probe or both, and how many features.

The simplest candidate is taken that is not worse than the best by more than the standard error of the difference, over
resamples of whole groups (the one-standard-error rule of Breiman et al., 1984, for paired differences). Fewer features
are simpler than more; features, which people can read, are simpler than a probe, and a probe is simpler than both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from monitor.policy.fit.metrics import Truth, auroc, resampled, threshold_at
from monitor.policy.fit.readings import Floats, Indices

Kind = Literal["features", "probe", "combined"]
KINDS: tuple[Kind, ...] = ("features", "probe", "combined")
"""Kinds of detectors, the simplest first."""
SHARES = (0.25, 0.5, 0.75)
"""What the probe may contribute to the score of a combined detector."""
LOW_RATES = (0.005, 0.01, 0.02, 0.05)
"""The false-positive rates whose recalls count."""
RESAMPLES = 60


@dataclass(frozen=True)
class DetectorChoice:
    """Which detector runs."""

    kind: Kind
    size: int
    """Number of features; of a probe, those that features would have."""
    share: float = 0.5
    """What the probe contributes to a combined detector's score."""

    def of(self, kind: Kind) -> DetectorChoice:
        """The same with a detector of another kind."""
        return replace(self, kind=kind)


@dataclass(frozen=True)
class Quality:
    """How well scores separate: half of it the AUROC against own negatives, half the mean recall at low rates."""

    value: float
    draws: Floats
    """`[resamples]`: its value in each resample; the same resamples for all candidates."""


class Judge:
    """Compares scores of the same texts."""

    def __init__(self, truth: Truth, seed: int) -> None:
        self._truth = truth
        self._draws = resampled(truth.groups, seed, RESAMPLES)

    def quality(self, scores: Floats) -> Quality:
        """The quality of scores `[texts]`."""
        everything = np.arange(len(scores))
        drawn = np.asarray([self._value(scores, rows) for rows in self._draws])
        return Quality(self._value(scores, everything), drawn)

    def _value(self, scores: Floats, rows: Indices) -> float:
        value, own, positive = scores[rows], self._truth.own[rows] == 1, self._truth.positive[rows] == 1
        yes, benign = value[own & positive], value[~own]
        area = auroc(yes, value[own & ~positive])
        if not len(yes) or not len(benign):
            return area
        recall = np.mean([(yes >= threshold_at(benign, rate)).mean() for rate in LOW_RATES])
        return float(area + recall) / 2


def simplest(candidates: Sequence[Quality]) -> int:
    """The first candidate whose loss against the best one is within the loss's standard error."""
    best = candidates[int(np.argmax([one.value for one in candidates]))]
    for number, one in enumerate(candidates):
        if best.value - one.value <= float(np.std(best.draws - one.draws)):
            return number
    raise AssertionError("the best loses nothing against itself")


def choose(
    judge: Judge, scores: Callable[[DetectorChoice], Floats], sizes: Sequence[int], asked: Kind | None
) -> DetectorChoice:
    """The detector to take, from held-out scores `[texts]` of each that may be; of the kind `asked`, where one is."""
    by_size = [judge.quality(scores(DetectorChoice("features", size))) for size in sizes]
    place = simplest(by_size)
    mixed = [judge.quality(scores(DetectorChoice("combined", sizes[place], share))) for share in SHARES]
    best = int(np.argmax([one.value for one in mixed]))
    found = DetectorChoice("features", sizes[place], SHARES[best])
    if asked is not None:
        return found.of(asked)
    probe = judge.quality(scores(found.of("probe")))
    return found.of(KINDS[simplest([by_size[place], probe, mixed[best]])])
