"""Choosing between ways to fit a detector, by cross-validation within the half that may be learnt from.

Knows folds that keep groups whole. Does not know the detectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.dictionary.evaluation.bootstrap import weighted_auroc
from monitor.dictionary.evaluation.half import Half

Scores = NDArray[np.floating]
FOLDS = 5


@dataclass(frozen=True)
class Fitted:
    """A detector that has been fitted."""

    score: Callable[[Half], Scores]
    """Scores `[rows]`; higher is more likely positive."""
    note: str = ""
    """What it is, in a few words."""
    features: int = 0
    """How many features it reads; 0 where it reads none."""


Candidate = Callable[[Half], Fitted]
"""A way to fit: everything it needs to know is learnt from the rows it is given."""


def best_of(half: Half, candidates: Sequence[Candidate]) -> Candidate:
    """The candidate with the highest mean AUROC over folds of the half; the earlier one where two are equal."""
    if len(candidates) == 1:
        return candidates[0]
    splits = folds(half)
    means = [np.mean([_auroc(candidate, half, *split) for split in splits]) for candidate in candidates]
    return candidates[int(np.argmax(means))]


def folds(half: Half) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Index pairs (fit, score) that keep groups whole and classes balanced, both classes on each side."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = len(np.unique(half.units))
    splitter = StratifiedGroupKFold(n_splits=min(FOLDS, groups), shuffle=True, random_state=0)
    found = splitter.split(np.zeros(len(half)), half.labels, half.units)
    both = [split for split in found if all(0 < half.labels[side].mean() < 1 for side in split)]
    if not both:
        raise ValueError("no fold has both classes on both sides; give more groups")
    return both


def _auroc(candidate: Candidate, half: Half, fit: NDArray[np.intp], score: NDArray[np.intp]) -> float:
    rest = half.take(score)
    scores = candidate(half.take(fit)).score(rest)
    return float(weighted_auroc(scores, rest.labels, np.ones((1, len(rest))))[0])
