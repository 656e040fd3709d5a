"""How the scores of tokens become one number per check, for many checks and many requests at once.

Knows arithmetic on `[tokens, lanes, checks]` float64 arrays; a lane is one request. Does not know features, policies
or requests. Feeding a sequence whole or in pieces, alone or beside others, gives the same numbers: every lane
carries what it needs from block to block in a `State`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from monitor.policy.policy import Pooling
from monitor.policy.schema.policy import Cumulative, Ema, LongestRun, Mean, TopKMean

Scores = NDArray[np.float64]
"""`[tokens, lanes, checks]`, or `[tokens, checks]` where there is one lane."""

State = dict[str, NDArray[Any]]
"""Named arrays whose first axis is the lane. Written in place."""


class Pool(Protocol):
    """Pooled score after each token of a block, given all earlier blocks."""

    def blank(self, lanes: int) -> State:
        """What so many lanes carry before their first token."""

    def push(self, state: State, scores: Scores) -> Scores:
        """`[tokens, lanes, checks]` token scores to as many pooled scores."""


class MaxPool:
    """v_t = s_t; the greatest of them is kept by the caller."""

    def blank(self, lanes: int) -> State:
        """Nothing is carried."""
        return {}

    def push(self, state: State, scores: Scores) -> Scores:
        """The scores themselves."""
        return scores


class MeanPool:
    """v_t = Σ_{u≤t} s_u / max(t, min_tokens), t counted from 1."""

    def __init__(self, min_tokens: Sequence[int]) -> None:
        self._least = np.asarray(min_tokens, np.float64)

    def blank(self, lanes: int) -> State:
        """Sum and count."""
        return {"sum": np.zeros((lanes, len(self._least))), "count": np.zeros((lanes, 1))}

    def push(self, state: State, scores: Scores) -> Scores:
        """Running means."""
        sums = np.cumsum(np.concatenate([state["sum"][None], scores]), axis=0)[1:]
        counts = state["count"][None] + np.arange(1, len(scores) + 1)[:, None, None]
        state["sum"][:], state["count"][:] = sums[-1], counts[-1]
        return np.asarray(sums / np.maximum(counts, self._least))


class TopKPool:
    """v_t = (sum of the k largest of max(s_u, 0), u ≤ t) / k; missing tokens count zero."""

    def __init__(self, k: Sequence[int]) -> None:
        self._k = np.asarray(k, np.float64)
        self._start = np.zeros((len(k), max(k)))
        for row, own in enumerate(k):
            self._start[row, own:] = np.inf

    def blank(self, lanes: int) -> State:
        """The k largest so far, the least of them, and their mean."""
        shape = (lanes, len(self._k))
        best = np.broadcast_to(self._start, (lanes, *self._start.shape)).copy()
        return {"best": best, "least": np.zeros(shape), "mean": np.zeros(shape)}

    def push(self, state: State, scores: Scores) -> Scores:
        """Running means of the k largest."""
        best, least, mean = state["best"], state["least"], state["mean"]
        out = np.empty_like(scores)
        useful = np.asarray((scores > least).any(axis=(1, 2)))
        for t, row in enumerate(scores):
            if useful[t]:
                lanes, checks = np.nonzero(row > least)
                kept = best[lanes, checks]
                kept[np.arange(len(kept)), kept.argmin(axis=1)] = row[lanes, checks]
                best[lanes, checks], least[lanes, checks] = kept, kept.min(axis=1)
                sums = np.sort(np.where(np.isinf(kept), 0.0, kept), axis=1).sum(axis=1)
                mean[lanes, checks] = sums / self._k[checks]
            out[t] = mean
        return out


class _Recursive:
    """A pool whose value after a token follows from the value before it and the token's score."""

    def __init__(self, setting: Sequence[float]) -> None:
        self._setting = np.asarray(setting, np.float64)

    def blank(self, lanes: int) -> State:
        """The value, zero."""
        return {"value": np.zeros((lanes, len(self._setting)))}

    def push(self, state: State, scores: Scores) -> Scores:
        """The values after each token."""
        out = np.empty_like(scores)
        value: NDArray[np.float64] = state["value"]
        for t, row in enumerate(scores):
            out[t] = value = self.after(value, row)
        state["value"][:] = value
        return out

    def after(self, value: Scores, row: Scores) -> Scores:
        """`[lanes, checks]` before a token and its scores, to the value after it."""
        raise NotImplementedError


class EmaPool(_Recursive):
    """v_t = v_{t−1} + (1 − 2^(−1/half_life)) · (s_t − v_{t−1}), v_0 = 0."""

    def __init__(self, half_lives: Sequence[float]) -> None:
        super().__init__((1.0 - 2.0 ** (-1.0 / np.asarray(half_lives, np.float64))).tolist())

    def after(self, value: Scores, row: Scores) -> Scores:
        """A step towards the score."""
        return value + self._setting * (row - value)


class RunPool(_Recursive):
    """v_t = v_{t−1} + 1 where s_t ≥ level, else 0."""

    def after(self, value: Scores, row: Scores) -> Scores:
        """One more, or none."""
        return np.where(row >= self._setting, value + 1, 0.0)


class CumulativePool(_Recursive):
    """v_t = max(0, v_{t−1} + s_t − allowance) (Page, 1954)."""

    def after(self, value: Scores, row: Scores) -> Scores:
        """The sum, never below zero."""
        return np.maximum(0.0, value + row - self._setting)


class Hold:
    """h_t = min(v_{t−n+1} … v_t): at or above the threshold exactly where n tokens in a row are."""

    def __init__(self, tokens: int, checks: int) -> None:
        self._tokens, self._checks = tokens, checks

    def blank(self, lanes: int) -> State:
        """The last n − 1 values, minus infinity before there were so many."""
        if self._tokens == 1:
            return {}
        return {"past": np.full((lanes, self._tokens - 1, self._checks), -np.inf)}

    def push(self, state: State, pooled: Scores) -> Scores:
        """Sliding minima."""
        n = self._tokens
        if n == 1:
            return pooled
        joined = np.concatenate([state["past"].swapaxes(0, 1), pooled])
        state["past"][:] = joined[-(n - 1) :].swapaxes(0, 1)
        return np.asarray(sliding_window_view(joined, n, axis=0).min(axis=-1))


class Pools:
    """The pools of all checks; checks that pool alike share one array. Holds no state of its own."""

    def __init__(self, poolings: Sequence[Pooling], holds: Sequence[int]) -> None:
        self._groups: list[tuple[NDArray[np.intp] | slice, Pool, Hold]] = []
        kinds = sorted({(p.kind, hold) for p, hold in zip(poolings, holds, strict=True)})
        for kind, hold in kinds:
            mine = [i for i in range(len(poolings)) if (poolings[i].kind, holds[i]) == (kind, hold)]
            columns = slice(None) if len(kinds) == 1 else np.asarray(mine)
            self._groups.append((columns, make_pool([poolings[i] for i in mine]), Hold(hold, len(mine))))

    def blank(self, lanes: int) -> State:
        """What so many lanes carry before their first token."""
        return {
            f"pool {i} {name}": array
            for i, (_, pool, hold) in enumerate(self._groups)
            for name, array in {**pool.blank(lanes), **hold.blank(lanes)}.items()
        }

    def push(self, state: State, scores: Scores) -> Scores:
        """`[tokens, lanes, checks]` token scores to what is compared with the thresholds."""
        out = np.empty_like(scores) if len(self._groups) != 1 else scores
        for i, (columns, pool, hold) in enumerate(self._groups):
            prefix = f"pool {i} "
            own = {name.removeprefix(prefix): a for name, a in state.items() if name.startswith(prefix)}
            pooled = hold.push(own, pool.push(own, scores[..., columns]))
            if len(self._groups) == 1:
                return pooled
            out[..., columns] = pooled
        return out


class PoolBank:
    """Pools of one text with their state."""

    def __init__(self, poolings: Sequence[Pooling], holds: Sequence[int]) -> None:
        self._pools = Pools(poolings, holds)
        self._state = self._pools.blank(1)

    def push(self, scores: Scores) -> Scores:
        """`[tokens, checks]` token scores to what is compared with the thresholds."""
        return self._pools.push(self._state, scores[:, None])[:, 0]


def make_pool(poolings: Sequence[Pooling]) -> Pool:
    """One pool for checks of one kind."""
    first = poolings[0]
    if isinstance(first, Mean):
        return MeanPool([p.min_tokens for p in poolings if isinstance(p, Mean)])
    if isinstance(first, TopKMean):
        return TopKPool([p.k for p in poolings if isinstance(p, TopKMean)])
    if isinstance(first, Ema):
        return EmaPool([p.half_life for p in poolings if isinstance(p, Ema)])
    if isinstance(first, LongestRun):
        return RunPool([p.level for p in poolings if isinstance(p, LongestRun)])
    if isinstance(first, Cumulative):
        return CumulativePool([p.allowance for p in poolings if isinstance(p, Cumulative)])
    return MaxPool()
