"""The features that say the most about safety concepts on their own.

Knows how features are ranked over the sources of a concept and beside ordinary requests. Does not know labels,
contexts or text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.evaluation.half import Floats, Half
from monitor.dictionary.explore.auroc import auroc

FIRES = 0.1
"""A reading from which on a feature counts as firing on a text."""
RARE_ON_BENIGN = 0.05
"""A feature that fires on a larger share of benign requests is not called clear."""
RARE_IN_CORPUS = 0.01
"""Nor one that is active on a larger share of the corpus's tokens."""
EXAMPLES = 3
"""Strongest measured rows that are kept per feature."""


@dataclass(frozen=True)
class SourceSummary:
    """What one source says of every feature alone; max-pooled readings."""

    concept: str
    source: str
    train: NDArray[np.float64]
    """`[features]` AUROC, positives against the source's negatives, rows to learn from."""
    train_benign: NDArray[np.float64]
    """`[features]` AUROC, the same positives against benign requests."""
    test: NDArray[np.float64]
    """`[features]` AUROC on the measured rows."""
    fires_positive: NDArray[np.float64]
    """`[features]` share of measured positives on which it fires."""
    fires_negative: NDArray[np.float64]
    strongest: NDArray[np.intp]
    """`[EXAMPLES, features]` measured positive rows with the highest reading, strongest first."""


@dataclass(frozen=True)
class Clear:
    """A feature that stands out for a concept."""

    feature: int
    concept: str
    clarity: float
    """The lower of its two mean train AUROCs: against the sources' negatives, and against benign requests."""
    held_out: float
    """Mean AUROC over the concept's sources on measured rows, which had no part in the choice."""
    fires_positive: float
    fires_negative: float
    fires_benign: float
    best_source: str
    """The source of the concept on which it does best on the rows to learn from."""
    examples: tuple[int, ...]
    """Measured positive rows of that source with the highest reading."""


def summarise(concept: str, source: str, train: Half, test: Half, benign: Floats) -> SourceSummary:
    """What one source says of every feature; `benign` holds max-pooled readings `[rows, features]`."""
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
) -> list[Clear]:
    """The `count` clearest features, at most `most_per_concept` for a concept, each feature once.

    Only features that are rare on benign requests and in the corpus (`density` `[features]`) are looked at: one
    that fires on "want" anywhere may separate well and still say little.
    """
    rare = ((benign >= FIRES).mean(0) <= RARE_ON_BENIGN) & (density <= RARE_IN_CORPUS)
    found = sorted(
        (clear for group in _by_concept(summaries) for clear in _best_of_concept(group, benign, rare, count)),
        key=lambda clear: -clear.clarity,
    )
    kept: list[Clear] = []
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
) -> list[Clear]:
    against_own = np.mean([summary.train for summary in group], axis=0)
    against_benign = np.mean([summary.train_benign for summary in group], axis=0)
    clarity = np.where(rare, np.minimum(against_own, against_benign), 0.0)
    best = np.argsort(-clarity, kind="stable")[:count]
    return [_clear(int(feature), float(clarity[feature]), group, benign) for feature in best if rare[feature]]


def _clear(feature: int, clarity: float, group: list[SourceSummary], benign: Floats) -> Clear:
    best = max(group, key=lambda summary: summary.train[feature])
    return Clear(
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
