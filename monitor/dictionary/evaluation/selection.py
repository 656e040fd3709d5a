"""Selection of a detector's settings by cross-validation within the training rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.dictionary.evaluation.bootstrap import weighted_auroc
from monitor.dictionary.evaluation.readings import LabelledReadings

Scores = NDArray[np.floating]
FOLDS = 5


@dataclass(frozen=True)
class FittedDetector:
    """A detector that has been fitted."""

    score: Callable[[LabelledReadings], Scores]
    """Gives a score for each row, `[rows]`. A higher score means that the row is more likely positive."""
    note: str = ""
    """Its settings, in a few words."""
    features: int = 0
    """Number of features that it reads."""


Candidate = Callable[[LabelledReadings], FittedDetector]
"""A detector with fixed settings: called with training rows, it gives the fitted detector."""


def best_of(readings: LabelledReadings, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest mean AUROC over the folds; the earlier one where two are equal."""
    if len(candidates) == 1:
        return candidates[0]
    splits = folds(readings)
    means = [np.mean([_auroc(candidate, readings, *split) for split in splits]) for candidate in candidates]
    return candidates[int(np.argmax(means))]


def folds(readings: LabelledReadings) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Pairs of row indices, to fit on and to score, that keep groups whole and classes balanced.

    A fold without both classes on both sides is left out. Raises ValueError where no fold is left.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    groups = len(np.unique(readings.units))
    splitter = StratifiedGroupKFold(n_splits=min(FOLDS, groups), shuffle=True, random_state=0)
    found = splitter.split(np.zeros(len(readings)), readings.labels, readings.units)
    both = [split for split in found if all(0 < readings.labels[side].mean() < 1 for side in split)]
    if not both:
        raise ValueError("no fold has both classes on both sides; give more groups")
    return both


def _auroc(
    candidate: Candidate, readings: LabelledReadings, fit: NDArray[np.intp], score: NDArray[np.intp]
) -> float:
    rest = readings.select(score)
    scores = candidate(readings.select(fit)).score(rest)
    return float(weighted_auroc(scores, rest.labels, np.ones((1, len(rest))))[0])
