"""How the scores of tokens become one number per rule, for many rules at once and in any number of blocks.

Knows arithmetic on `[tokens, rules]` float64 arrays. Does not know features, policies or requests. Feeding a
sequence whole or in pieces gives the same numbers: each pool carries what it needs from block to block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from monitor.policy.policy import Pooling
from monitor.policy.schema import Ema, LongestRun, Mean, TopKMean

Scores = NDArray[np.float64]
"""`[tokens, rules]`, or `[rules]` where one number per rule is meant."""


class Pool(Protocol):
    """Pooled score after each token of a block, given all earlier blocks."""

    def push(self, scores: Scores) -> Scores:
        """`[tokens, rules]` token scores to `[tokens, rules]` pooled scores."""


class MaxPool:
    """v_t = s_t; the greatest of them is kept by the caller."""

    def push(self, scores: Scores) -> Scores:
        """The scores themselves."""
        return scores


class MeanPool:
    """v_t = Σ_{u≤t} s_u / max(t, min_tokens), t counted from 1."""

    def __init__(self, min_tokens: Sequence[int]) -> None:
        self._least = np.asarray(min_tokens, np.float64)
        self._sum = np.zeros(len(min_tokens))
        self._count = 0

    def push(self, scores: Scores) -> Scores:
        """Running means."""
        sums = np.cumsum(np.vstack([self._sum, scores]), axis=0)[1:]
        counts = self._count + np.arange(1, len(scores) + 1)
        self._sum, self._count = sums[-1], int(counts[-1])
        return np.asarray(sums / np.maximum(counts[:, None], self._least))


class TopKPool:
    """v_t = (sum of the k largest of max(s_u, 0), u ≤ t) / k; missing tokens count zero."""

    def __init__(self, k: Sequence[int]) -> None:
        self._k = np.asarray(k, np.float64)
        self._best = np.zeros((len(k), max(k)))
        for row, own in enumerate(k):
            self._best[row, own:] = np.inf

    def push(self, scores: Scores) -> Scores:
        """Running means of the k largest."""
        out = np.empty_like(scores)
        rules = np.arange(scores.shape[1])
        useful = (scores > self._best.min(axis=1)).any(axis=1)
        current = self._means()
        for t, row in enumerate(scores):
            if useful[t]:
                least = self._best.argmin(axis=1)
                self._best[rules, least] = np.maximum(self._best[rules, least], row)
                current = self._means()
            out[t] = current
        return out

    def _means(self) -> Scores:
        sums = np.sort(np.where(np.isinf(self._best), 0.0, self._best), axis=1).sum(axis=1)
        return np.asarray(sums / self._k)


class EmaPool:
    """v_t = v_{t−1} + (1 − 2^(−1/half_life)) · (s_t − v_{t−1}), v_0 = 0."""

    def __init__(self, half_lives: Sequence[float]) -> None:
        self._rate = 1.0 - 2.0 ** (-1.0 / np.asarray(half_lives, np.float64))
        self._value = np.zeros(len(half_lives))

    def push(self, scores: Scores) -> Scores:
        """Running averages."""
        out = np.empty_like(scores)
        for t, row in enumerate(scores):
            out[t] = self._value = self._value + self._rate * (row - self._value)
        return out


class RunPool:
    """v_t = v_{t−1} + 1 where s_t ≥ level, else 0."""

    def __init__(self, levels: Sequence[float]) -> None:
        self._level = np.asarray(levels, np.float64)
        self._run = np.zeros(len(levels))

    def push(self, scores: Scores) -> Scores:
        """Lengths of the runs that end at each token."""
        out = np.empty_like(scores)
        for t, reached in enumerate(scores >= self._level):
            out[t] = self._run = np.where(reached, self._run + 1, 0.0)
        return out


class Hold:
    """h_t = min(v_{t−n+1} … v_t): at or above the threshold exactly where n tokens in a row are."""

    def __init__(self, tokens: int, rules: int) -> None:
        self._past = np.full((tokens - 1, rules), -np.inf)

    def push(self, pooled: Scores) -> Scores:
        """Sliding minima; minus infinity before `n` tokens were seen."""
        n = len(self._past) + 1
        if n == 1:
            return pooled
        joined = np.vstack([self._past, pooled])
        self._past = joined[-(n - 1) :].copy()
        return np.asarray(sliding_window_view(joined, n, axis=0).min(axis=-1))


class PoolBank:
    """The pools of all rules of one request and phase; rules that pool alike share one array."""

    def __init__(self, poolings: Sequence[Pooling], holds: Sequence[int]) -> None:
        self._groups: list[tuple[NDArray[np.intp], Pool, Hold]] = []
        self._rules = len(poolings)
        kinds = sorted({(p.kind, hold) for p, hold in zip(poolings, holds, strict=True)})
        for kind, hold in kinds:
            mine = [i for i in range(self._rules) if (poolings[i].kind, holds[i]) == (kind, hold)]
            pool = make_pool([poolings[i] for i in mine])
            self._groups.append((np.asarray(mine), pool, Hold(hold, len(mine))))

    def push(self, scores: Scores) -> Scores:
        """`[tokens, rules]` token scores to what is compared with the thresholds."""
        out = np.empty_like(scores)
        for columns, pool, hold in self._groups:
            out[:, columns] = hold.push(pool.push(scores[:, columns]))
        return out


def make_pool(poolings: Sequence[Pooling]) -> Pool:
    """One pool for rules of one kind."""
    first = poolings[0]
    if isinstance(first, Mean):
        return MeanPool([p.min_tokens for p in poolings if isinstance(p, Mean)])
    if isinstance(first, TopKMean):
        return TopKPool([p.k for p in poolings if isinstance(p, TopKMean)])
    if isinstance(first, Ema):
        return EmaPool([p.half_life for p in poolings if isinstance(p, Ema)])
    if isinstance(first, LongestRun):
        return RunPool([p.level for p in poolings if isinstance(p, LongestRun)])
    return MaxPool()
