"""Thresholds by text length, and how a false-positive rate is divided among the lengths.

A rule looks at a text again after every token, so a long text has more chances to fire than a short one. Therefore each
length bucket has its own threshold. A text that gets into a bucket has passed all buckets before, so the rate is spent
as in a sequential test (Lan and DeMets, 1983): each bucket spends half of what is left, and the last spends all of it.
A text of any length then fires with at most the whole rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.errors import PolicyError
from monitor.policy.fit.readings import Floats, Indices

EDGES = (16, 48, 128, 512, 2048)
"""Last token of each length bucket; one more bucket has no end."""
FEWEST = 200
"""A bucket with fewer calibration texts is joined to the one before it."""
SPENT = 0.5
"""Share of what is left of a rate that a bucket may spend."""
NEVER = -np.inf
"""Score of a text in a bucket that it is too short for."""


@dataclass(frozen=True)
class BucketMaxima:
    """The highest pooled score of each text within each bucket."""

    best: Floats
    """`[texts, buckets]`; minus infinity where the text ends before the bucket."""
    edges: tuple[int, ...]
    """Last token of each bucket but the last, counted from 1."""

    @property
    def overall(self) -> Floats:
        """`[texts]`: the highest pooled score in any bucket."""
        return np.asarray(self.best.max(axis=1))

    def take(self, which: Indices) -> BucketMaxima:
        """The scores of the texts `which`."""
        return BucketMaxima(self.best[which], self.edges)

    def scaled(self, middle: float, spread: float) -> BucketMaxima:
        """Standardised scores: `(score - middle) / spread`."""
        return BucketMaxima((self.best - middle) / spread, self.edges)

    def unscaled(self, middle: float, spread: float) -> BucketMaxima:
        """The inverse of `scaled`."""
        return BucketMaxima(self.best * spread + middle, self.edges)


@dataclass(frozen=True)
class CalibratedThreshold:
    """A threshold for the tokens of one bucket, and how many texts set it."""

    up_to: int | None
    """Last token of the bucket, counted from 1; None for no end."""
    threshold: float
    texts: int
    """Number of calibration texts that are long enough for the bucket."""


def bucket_maxima(courses: Sequence[Floats], edges: tuple[int, ...]) -> BucketMaxima:
    """The highest score of each text in each bucket, from its pooled score after each token.

    A text without tokens scores 0 in the first bucket. PolicyError where a score is NaN.
    """
    starts = (0, *edges)
    best = np.full((len(courses), len(starts)), NEVER)
    for i, course in enumerate(courses):
        if np.isnan(course).any():
            raise PolicyError(
                "a text scores NaN; verify model and dictionary: `sae-monitor dictionary verify`"
            )
        for b, start in enumerate(starts):
            part = course[start : edges[b] if b < len(edges) else None]
            if len(part):
                best[i, b] = part.max()
    silent = ~np.isfinite(best).any(axis=1)
    best[silent, 0] = 0.0
    return BucketMaxima(best, edges)


def stack(parts: Sequence[BucketMaxima]) -> BucketMaxima:
    """The scores of all texts of all parts, in order."""
    return BucketMaxima(np.concatenate([part.best for part in parts]), parts[0].edges)


def spent(rate: float, buckets: int) -> list[float]:
    """How much of a rate may be spent by the end of each of so many buckets."""
    return [*(rate * (1 - (1 - SPENT) ** n) for n in range(1, buckets)), rate]


def calibrate(benign: BucketMaxima, rate: float, least: float = NEVER) -> list[CalibratedThreshold]:
    """A threshold per bucket, so that at most `rate` of the benign texts of any length fire; none is below `least`.

    The quantile is the conservative one of conformal prediction (Vovk et al., 2005): of `n` texts at most
    `rate · (n + 1) − 1` may fire, so that the rate also holds for the next text, on average.
    """
    buckets: list[CalibratedThreshold] = []
    fired = np.zeros(len(benign.best), bool)
    groups = _joined(benign)
    for (columns, up_to), whole in zip(groups, spent(rate, len(groups)), strict=True):
        scores = benign.best[:, columns].max(axis=1)
        here = np.isfinite(scores)
        allowed = max(0, int(np.floor(whole * (here.sum() + 1))) - 1 - int(fired[here].sum()))
        threshold = max(_above(scores[here & ~fired], allowed), least)
        fired |= scores >= threshold
        buckets.append(CalibratedThreshold(up_to, float(threshold), int(here.sum())))
    return buckets


def fires(maxima: BucketMaxima, thresholds: Sequence[tuple[int | None, float]]) -> Indices:
    """`[texts]`: 1 where a text reaches the threshold that holds for its length, else 0.

    `thresholds` are pairs of (last token, threshold) in growing order; the last pair has no last token. Where the
    threshold changes within a bucket, the lowest counts for the whole bucket, so the rate is never understated.
    """
    fired = np.zeros(len(maxima.best), bool)
    starts = (0, *maxima.edges)
    for column, start in enumerate(starts):
        end = np.inf if column == len(maxima.edges) else maxima.edges[column]
        lowest, before = np.inf, 0.0
        for up_to, threshold in thresholds:
            until = np.inf if up_to is None else up_to
            if before < end and until > start:
                lowest = min(lowest, threshold)
            before = until
        fired |= maxima.best[:, column] >= lowest
    return fired.astype(np.intp)


def _joined(benign: BucketMaxima) -> list[tuple[list[int], int | None]]:
    """The buckets that are calibrated: their columns in `benign.best`, and their last token.

    A bucket with few texts is joined to the one before. So is a bucket behind one in which no text has a score, because
    it is shorter than the rule's `for`.
    """
    counts = np.isfinite(benign.best).sum(axis=0)
    ends: list[int | None] = [*benign.edges, None]
    groups: list[tuple[list[int], int | None]] = []
    for column, end in enumerate(ends):
        if groups and (counts[column] < FEWEST or not counts[groups[-1][0]].any()):
            groups[-1] = ([*groups[-1][0], column], end)
        else:
            groups.append(([column], end))
    return groups


def _above(scores: Floats, allowed: int) -> float:
    """The threshold that at most `allowed` of the scores reach, and exactly so many where no two are equal."""
    if not len(scores):
        return NEVER
    ranked = np.sort(scores)[::-1]
    below = ranked[min(allowed, len(ranked) - 1)]
    above = ranked[ranked > below]
    return float((above[-1] + below) / 2 if len(above) else below + 0.05 * abs(below) + 1e-9)
