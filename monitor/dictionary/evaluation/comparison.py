"""Comparison of all detectors on one source: each is fitted on the training rows and measured on the held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.dictionary.evaluation import baselines, features
from monitor.dictionary.evaluation.bootstrap import AurocInterval, auroc_by_group
from monitor.dictionary.evaluation.readings import LabelledReadings
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
class DetectorResult:
    """One detector's result on one source."""

    detector: str
    """One of `DETECTORS`."""
    auroc: AurocInterval
    """AUROC on the held-out rows."""
    features: int
    """Number of features that it reads."""
    note: str
    """The settings that were chosen, in a few words."""


@dataclass(frozen=True)
class SourceComparison:
    """The results of all detectors on one source."""

    concept: str
    source: str
    train_rows: int
    test_rows: int
    test_positive: int
    """Number of held-out rows that are positive."""
    test_groups: int
    """Number of groups among the held-out rows."""
    measured: tuple[DetectorResult, ...]

    def of(self, detector: str) -> DetectorResult:
        """The result of the detector with this name, one of `DETECTORS`."""
        return next(item for item in self.measured if item.detector == detector)


def compare_detectors(
    concept: str, source: str, train: LabelledReadings, test: LabelledReadings, *, limit: int
) -> SourceComparison:
    """Fit every detector on `train`, with settings chosen by cross-validation within `train`, and measure it on `test`.

    `limit` is the largest number of features that the sparse rule may read.
    """
    return SourceComparison(
        concept,
        source,
        len(train),
        len(test),
        int(test.labels.sum()),
        len(np.unique(test.units)),
        tuple(_measured(name, train, test, _candidates(name, train, limit)) for name in DETECTORS),
    )


def _candidates(detector: str, train: LabelledReadings, limit: int) -> Sequence[Candidate]:
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


def _measured(
    detector: str, train: LabelledReadings, test: LabelledReadings, candidates: Sequence[Candidate]
) -> DetectorResult:
    fitted = best_of(train, candidates)(train)
    scores = np.asarray(fitted.score(test), np.float64)
    return DetectorResult(
        detector, auroc_by_group(scores, test.labels, test.units), fitted.features, fitted.note
    )
