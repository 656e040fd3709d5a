"""All detectors on one source: fitted on one half, measured on the other.

Knows which detectors there are and that nothing of the measured half reaches a fit. Does not know how any works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.dictionary.evaluation import baselines, features
from monitor.dictionary.evaluation.bootstrap import Interval, auroc_by_group
from monitor.dictionary.evaluation.half import Half
from monitor.dictionary.evaluation.selection import Candidate, best_of

DETECTORS = (
    "best feature",
    "sparse rule",
    "dense rule",
    "linear probe",
    "difference of means",
    "bag of words",
)


@dataclass(frozen=True)
class Measured:
    """One detector on one source."""

    detector: str
    auroc: Interval
    features: int
    """How many features it reads."""
    note: str


@dataclass(frozen=True)
class SourceResult:
    """All detectors on one source."""

    concept: str
    source: str
    train_rows: int
    test_rows: int
    test_positive: int
    test_groups: int
    measured: tuple[Measured, ...]

    def of(self, detector: str) -> Measured:
        """One detector's result."""
        return next(item for item in self.measured if item.detector == detector)


def measure(concept: str, source: str, train: Half, test: Half, *, limit: int) -> SourceResult:
    """Fit every detector on `train`, choosing its settings there, and measure it once on `test`.

    `limit` is the most features that the sparse rule may read.
    """
    return SourceResult(
        concept,
        source,
        len(train),
        len(test),
        int(test.labels.sum()),
        len(np.unique(test.units)),
        tuple(_measured(name, train, test, _candidates(name, train, limit)) for name in DETECTORS),
    )


def _candidates(detector: str, train: Half, limit: int) -> Sequence[Candidate]:
    match detector:
        case "best feature":
            return [features.best_feature]
        case "sparse rule":
            return features.sparse_candidates(limit)
        case "dense rule":
            return features.dense_candidates()
        case "linear probe":
            return baselines.probe_candidates()
        case "difference of means":
            return [baselines.difference_of_means]
        case _:
            return baselines.word_candidates(train)


def _measured(detector: str, train: Half, test: Half, candidates: Sequence[Candidate]) -> Measured:
    fitted = best_of(train, candidates)(train)
    scores = np.asarray(fitted.score(test), np.float64)
    return Measured(detector, auroc_by_group(scores, test.labels, test.units), fitted.features, fitted.note)
