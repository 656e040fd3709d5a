"""Pooled scores of whole texts, and the weight α of each token in them.

A text's highest pooled score is a weighted sum of its token scores: `pooled = Σ_t α_t · s_t`, for `cumulative` less
the allowance. The α depend on the scores, since they are those of the token at which the pooled score was highest. The
fit therefore alternates between finding α for given feature weights and feature weights for given α, as in
multiple-instance learning (Andrews et al., 2002). For `longest_run`, and for `max` with `for`, the sum is a stand-in:
the mean score of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from monitor.policy.fit.lengths import EDGES, BucketMaxima, bucket_maxima
from monitor.policy.fit.readings import Floats
from monitor.policy.policy import Pooling
from monitor.policy.rules.pooling import PoolBank
from monitor.policy.schema.policy import Cumulative, Ema, LongestRun, Max, Mean, TopKMean


@dataclass(frozen=True)
class RulePooling:
    """The pooling of a rule: how a text's token scores become one number."""

    pooling: Pooling
    hold: int = 1
    """The rule's `for`: the pooled score must stay at or above the threshold for this many tokens in a row."""

    def score(self, texts: Sequence[Floats]) -> Floats:
        """`[texts]`: the highest pooled score of each text, from its token scores `[tokens]`; 0 for no tokens."""
        if self.hold == 1 and isinstance(self.pooling, TopKMean):
            return _strongest(texts, self.pooling.k)
        if (found := self._courses(texts)) is None:
            return np.asarray([pooled(scores, self.pooling, self.hold) for scores in texts])
        best = found.max(axis=1, initial=-np.inf)
        return np.where(np.isfinite(best), best, 0.0)

    def attentions(self, texts: Sequence[Floats]) -> Floats:
        """`[tokens of all texts]`: the weight α of each token in its text's pooled score; see `attention`."""
        found = self._courses(texts)
        if found is None or not found.size:
            parts = [attention(scores, self.pooling, self.hold) for scores in texts]
            return np.concatenate(parts) if parts else np.zeros(0)
        behind = found.argmax(axis=1)[:, None] - np.arange(found.shape[1])
        if isinstance(self.pooling, Ema):
            keep = 2.0 ** (-1.0 / self.pooling.half_life)
            weights = (1.0 - keep) * keep ** np.maximum(behind, 0)
        elif isinstance(self.pooling, Mean):
            counted = np.maximum(found.argmax(axis=1) + 1, self.pooling.min_tokens)
            weights = np.broadcast_to(1.0 / counted[:, None], behind.shape)
        else:
            weights = np.where(behind == 0, 1.0, 0.0)
        return np.asarray(np.where(behind >= 0, weights, 0.0)[np.isfinite(found)])

    def _courses(self, texts: Sequence[Floats]) -> Floats | None:
        """`[texts, longest]`: pooled scores after each token of all texts at once, minus infinity behind a text's end.

        None for poolings that are computed text by text.
        """
        if self.hold > 1 or not isinstance(self.pooling, Ema | Mean | Max):
            return None
        scores, there = _padded(texts)
        if isinstance(self.pooling, Ema):
            keep = 2.0 ** (-1.0 / self.pooling.half_life)
            scores = lfilter([1.0 - keep], [1.0, -keep], scores, axis=1)
        elif isinstance(self.pooling, Mean):
            counts = np.maximum(np.arange(1, scores.shape[1] + 1), self.pooling.min_tokens)
            scores = scores.cumsum(axis=1) / counts
        return np.where(there, scores, -np.inf)

    def course(self, scores: Floats) -> Floats:
        """The pooled score after each token, `[tokens]`, from token scores `[tokens]`."""
        return course(scores, self.pooling, self.hold)

    def bucket_maxima(self, texts: Sequence[Floats]) -> BucketMaxima:
        """The highest pooled score of each text by length bucket, from token scores `[tokens]` per text."""
        return bucket_maxima([self.course(scores) for scores in texts], EDGES)


def pooled(scores: Floats, pooling: Pooling, hold: int) -> float:
    """The highest pooled score of a text with token scores `[tokens]`; 0 for a text without tokens."""
    if not len(scores):
        return 0.0
    best = course(scores, pooling, hold).max()
    return float(best) if np.isfinite(best) else 0.0


def course(scores: Floats, pooling: Pooling, hold: int) -> Floats:
    """The pooled score after each token, `[tokens]`."""
    # A filter gives the moving average faster than the running rule's token by token.
    if isinstance(pooling, Ema) and hold == 1:
        keep = 2.0 ** (-1.0 / pooling.half_life)
        return np.asarray(lfilter([1.0 - keep], [1.0, -keep], scores))
    return PoolBank([pooling], [hold]).push(scores[:, None])[:, 0]


def attention(scores: Floats, pooling: Pooling, hold: int) -> Floats:
    """The weight α of each token `[tokens]` in the pooled score of one text with token scores `[tokens]`."""
    alpha = np.zeros(len(scores))
    if not len(scores):
        return alpha
    if isinstance(pooling, TopKMean):
        alpha[np.argsort(-scores, kind="stable")[: pooling.k]] = 1.0 / pooling.k
        return alpha
    end = int(np.argmax(course(scores, pooling, hold)))
    if isinstance(pooling, Mean):
        alpha[: end + 1] = 1.0 / max(end + 1, pooling.min_tokens)
    elif isinstance(pooling, Ema):
        keep = 2.0 ** (-1.0 / pooling.half_life)
        alpha[: end + 1] = (1.0 - keep) * keep ** np.arange(end, -1, -1)
    elif isinstance(pooling, Cumulative):
        empty = np.flatnonzero(course(scores, pooling, 1)[: end + 1] <= 0)
        alpha[int(empty[-1]) + 1 if len(empty) else 0 : end + 1] = 1.0
    else:
        width = hold if isinstance(pooling, Max) else _run(scores, pooling, end)
        alpha[max(0, end + 1 - width) : end + 1] = 1.0 / width
    return alpha


def _padded(texts: Sequence[Floats]) -> tuple[Floats, NDArray[np.bool_]]:
    """`[texts, longest]`: the scores of all texts, 0 behind a text's end, and where there are any."""
    lengths = np.asarray([len(scores) for scores in texts], np.intp)
    there = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    padded = np.zeros(there.shape)
    if there.any():
        padded[there] = np.concatenate(texts)
    return padded, there


def _strongest(texts: Sequence[Floats], k: int) -> Floats:
    """`[texts]`: the mean of the k largest positive scores of each; missing ones are zero."""
    padded, _ = _padded(texts)
    return np.asarray(-np.sort(-np.maximum(padded, 0.0), axis=1)[:, :k].sum(axis=1) / k)


def _run(scores: Floats, pooling: LongestRun, end: int) -> int:
    below = np.flatnonzero(scores[: end + 1] < pooling.level)
    return max(1, end - int(below[-1]) if len(below) else end + 1)
