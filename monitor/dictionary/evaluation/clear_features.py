"""The clearest features of each concept: single features that separate its texts from negatives and benign texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.evaluation.readings import Floats, LabelledReadings
from monitor.dictionary.explore.auroc import auroc

FIRES = 0.1
"""Reading (in units of the feature's maximum) from which on a feature counts as firing on a text."""
RARE_ON_BENIGN = 0.05
"""Largest share of benign requests on which a clear feature may fire."""
RARE_IN_CORPUS = 0.01
"""Largest share of the corpus's tokens at which a clear feature may be active."""
EXAMPLES = 3
"""Number of example texts per feature."""


@dataclass(frozen=True)
class SourceSummary:
    """How each feature alone separates the rows of one source, by its max-pooled reading."""

    concept: str
    source: str
    train: NDArray[np.float64]
    """`[features]`: AUROC on the training rows, positives against negatives."""
    train_benign: NDArray[np.float64]
    """`[features]`: AUROC of the same positives against benign requests."""
    test: NDArray[np.float64]
    """`[features]`: AUROC on the held-out rows."""
    fires_positive: NDArray[np.float64]
    """`[features]`: share of held-out positives on which the feature fires."""
    fires_negative: NDArray[np.float64]
    """`[features]`: share of held-out negatives on which the feature fires."""
    strongest: NDArray[np.intp]
    """`[EXAMPLES, features]`: held-out positive rows with the highest readings, strongest first."""


@dataclass(frozen=True)
class ClearFeature:
    """A feature that was chosen for a concept."""

    feature: int
    concept: str
    clarity: float
    """The lower of two mean AUROCs on training rows: against the sources' negatives, and against benign requests."""
    held_out: float
    """Mean AUROC over the concept's sources on held-out rows, which were not used for the choice."""
    fires_positive: float
    """Share of held-out positives on which it fires, averaged over the concept's sources."""
    fires_negative: float
    """Share of held-out negatives, likewise."""
    fires_benign: float
    """Share of benign requests on which it fires."""
    best_source: str
    """The source on whose training rows its AUROC is highest."""
    examples: tuple[int, ...]
    """Held-out positive rows of that source with the highest readings."""


def summarise(
    concept: str, source: str, train: LabelledReadings, test: LabelledReadings, benign: Floats
) -> SourceSummary:
    """Summarise one source. `benign` are max-pooled readings `[rows, features]` of benign requests."""
    positive = train.maximum[train.labels]
    fires = test.maximum >= FIRES
    ranked = np.argsort(-np.where(test.labels[:, None], test.maximum, -1.0), axis=0, kind="stable")
    return SourceSummary(
        concept,
        source,
        train=_auroc(positive, train.maximum[~train.labels]),
        train_benign=_auroc(positive, benign),
        test=_auroc(test.maximum[test.labels], test.maximum[~test.labels]),
        fires_positive=fires[test.labels].mean(0),
        fires_negative=fires[~test.labels].mean(0),
        strongest=ranked[:EXAMPLES],
    )


def clearest(
    summaries: Sequence[SourceSummary],
    benign: Floats,
    density: NDArray[np.floating],
    *,
    count: int,
    most_per_concept: int,
) -> list[ClearFeature]:
    """The `count` features of the highest clarity, at most `most_per_concept` per concept, each feature once.

    Only features that fire rarely on ordinary text are candidates: one that fires wherever "want" occurs may separate
    a source well and still not stand for its concept.

    Args:
        summaries: what each source says of every feature.
        benign: max-pooled readings `[rows, features]` of benign requests.
        density: share of the corpus's tokens at which each feature is active, `[features]`.
        count: how many features to return.
        most_per_concept: largest number of them for one concept.
    """
    rare = ((benign >= FIRES).mean(0) <= RARE_ON_BENIGN) & (density <= RARE_IN_CORPUS)
    found = sorted(
        (clear for group in _by_concept(summaries) for clear in _best_of_concept(group, benign, rare, count)),
        key=lambda clear: -clear.clarity,
    )
    kept: list[ClearFeature] = []
    for clear in found:
        of_concept = sum(other.concept == clear.concept for other in kept)
        if of_concept < most_per_concept and clear.feature not in {other.feature for other in kept}:
            kept.append(clear)
    return kept[:count]


def _by_concept(summaries: Sequence[SourceSummary]) -> Iterable[list[SourceSummary]]:
    for concept in dict.fromkeys(summary.concept for summary in summaries):
        yield [summary for summary in summaries if summary.concept == concept]


def _best_of_concept(
    group: list[SourceSummary], benign: Floats, rare: NDArray[np.bool_], count: int
) -> list[ClearFeature]:
    against_own = np.mean([summary.train for summary in group], axis=0)
    against_benign = np.mean([summary.train_benign for summary in group], axis=0)
    clarity = np.where(rare, np.minimum(against_own, against_benign), 0.0)
    best = np.argsort(-clarity, kind="stable")[:count]
    return [_clear(int(feature), float(clarity[feature]), group, benign) for feature in best if rare[feature]]


def _clear(feature: int, clarity: float, group: list[SourceSummary], benign: Floats) -> ClearFeature:
    best = max(group, key=lambda summary: summary.train[feature])
    return ClearFeature(
        feature=feature,
        concept=best.concept,
        clarity=clarity,
        held_out=float(np.mean([summary.test[feature] for summary in group])),
        fires_positive=float(np.mean([summary.fires_positive[feature] for summary in group])),
        fires_negative=float(np.mean([summary.fires_negative[feature] for summary in group])),
        fires_benign=float((benign[:, feature] >= FIRES).mean()),
        best_source=best.source,
        examples=tuple(best.strongest[:, feature].tolist()),
    )


def _auroc(positive: Floats, negative: Floats) -> NDArray[np.float64]:
    return np.asarray(auroc(torch.from_numpy(positive), torch.from_numpy(negative)).value.numpy())
