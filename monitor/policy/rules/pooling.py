"""Pooling: how the scores of tokens become one number per check, for many checks and many sequences at once.

Arithmetic on `[tokens, lanes, checks]` float64 arrays; a lane is one sequence. A sequence fed whole or in pieces, alone
or beside others, gives the same numbers to the last bit: every lane carries what it needs from block to block in a
`State`, and no sum depends on where a block ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Pooling
from monitor.policy.schema.policy import Cumulative, Ema, LongestRun, Mean, TopKMean

Scores = NDArray[np.float64]
"""`[tokens, lanes, checks]`"""

State = dict[str, NDArray[Any]]
"""Named arrays whose first axis is the lane. Written in place."""

CHUNK = 64
"""Tokens over which a moving average is written as one weighted sum."""
_LARGEST = 500.0
"""Powers of two by which such a sum may grow over a chunk: far below what float64 holds."""


@dataclass(frozen=True)
class Extent:
    """How many tokens each lane of a block has."""

    before: NDArray[np.int64]
    """`[lanes]` tokens of the phase in earlier blocks; in blocks of several tokens alike, modulo `CHUNK`, in all."""
    lengths: NDArray[np.int64] | None = None
    """`[lanes]` tokens of each, the last of which are padding in shorter ones; None where all fill the block."""

    def last(self, values: Scores) -> NDArray[np.float64]:
        """Of `[tokens, lanes, …]` the values at each lane's last token."""
        if self.lengths is None:
            return np.asarray(values[-1])
        return np.asarray(values[self.lengths - 1, np.arange(len(self.lengths))])

    def ends(self, tokens: int) -> NDArray[np.int64] | int:
        """Tokens of each lane, in a block of so many."""
        return tokens if self.lengths is None else self.lengths


class Pool(Protocol):
    """Pooled score after each token of a block, given all earlier blocks."""

    def blank(self, lanes: int) -> State:
        """What so many lanes carry before their first token."""

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """`[tokens, lanes, checks]` token scores to as many pooled scores; padding scores 0."""


class MaxPool:
    """v_t = s_t; the greatest of them is kept by the caller."""

    def blank(self, lanes: int) -> State:
        """Nothing is carried."""
        return {}

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """The scores themselves."""
        return scores


class MeanPool:
    """v_t = Σ_{u≤t} s_u / max(t, min_tokens), t counted from 1."""

    def __init__(self, min_tokens: Sequence[int]) -> None:
        self._least = np.asarray(min_tokens, np.float64)

    def blank(self, lanes: int) -> State:
        """The sum."""
        return {"sum": np.zeros((lanes, len(self._least)))}

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """Running means."""
        sums = _running_sum(scores, state["sum"])
        state["sum"][:] = extent.last(sums)
        counts = extent.before + np.arange(1, len(scores) + 1)[:, None]
        return np.asarray(sums / np.maximum(counts[..., None], self._least))


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

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """Running means of the k largest. Only tokens that beat the least of them are looked at one by one."""
        out = np.empty_like(scores)
        first, size = 0, 8
        while first < len(scores):
            part = scores[first : first + size]
            beating = np.flatnonzero((part > state["least"]).any(axis=(1, 2))).tolist()
            done = 0
            for t in beating:
                out[first + done : first + t] = state["mean"]
                self._take(state, part[t])
                done = t
            out[first + done : first + len(part)] = state["mean"]
            # Of n tokens in any order the second half brings few that beat the first.
            first, size = first + size, 2 * size
        return out

    def _take(self, state: State, row: NDArray[np.float64]) -> None:
        best, least, mean = state["best"], state["least"], state["mean"]
        lanes, checks = np.nonzero(row > least)
        kept = best[lanes, checks]
        kept[np.arange(len(kept)), kept.argmin(axis=1)] = row[lanes, checks]
        best[lanes, checks], least[lanes, checks] = kept, kept.min(axis=1)
        ordered = np.sort(np.where(np.isinf(kept), 0.0, kept), axis=1)
        mean[lanes, checks] = ordered.cumsum(axis=1)[:, -1] / self._k[checks]


class EmaPool:
    """v_t = v_{t−1} + (1 − 2^(−1/half_life)) · (s_t − v_{t−1}), v_0 = 0.

    Over a chunk of the phase's tokens this is v_{c+j} = k^(j+1) · (v_c + (1 − k) · Σ_{i≤j} s_{c+i} / k^(i+1)), k =
    2^(−1/half_life): one running sum, which blocks may cut anywhere.
    """

    def __init__(self, half_lives: Sequence[float]) -> None:
        exponent = np.arange(1, CHUNK + 1)[:, None] / np.asarray(half_lives, np.float64)
        self._up, self._down = 2.0**exponent, 2.0**-exponent
        self._rate = 1.0 - self._down[0]

    def blank(self, lanes: int) -> State:
        """The value where the chunk began, and the sum since."""
        shape = (lanes, self._up.shape[1])
        return {"anchor": np.zeros(shape), "sum": np.zeros(shape)}

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """The averages after each token."""
        if len(scores) == 1:
            return self._one(state, scores[0], extent.before % CHUNK)[None]
        offset, (tokens, lanes, checks) = int(extent.before[0]) % CHUNK, scores.shape
        chunks, here = -(-(offset + tokens) // CHUNK), slice(offset, offset + tokens)
        whole = np.zeros((chunks * CHUNK, lanes, checks))
        whole[here] = scores
        sums = whole.reshape(chunks, CHUNK, lanes, checks)
        sums *= self._up[:, None]
        whole[offset] = state["sum"] + scores[0] * self._up[offset]
        np.cumsum(sums, axis=1, out=sums)
        anchors = np.empty((chunks + 1, lanes, checks))
        anchors[0] = state["anchor"]
        now, whole_chunk = anchors[0], self._down[-1]
        for after, total in zip(anchors[1:], self._rate * sums[:, -1], strict=True):
            np.add(now, total, out=after)
            now = np.multiply(after, whole_chunk, out=after)
        out = self._rate * sums
        out += anchors[:-1, None]
        out *= self._down[:, None]
        ends = offset + np.broadcast_to(extent.ends(tokens), (lanes,))
        self._keep(state, anchors, sums, ends)
        return np.asarray(out.reshape(whole.shape)[here])

    def _keep(self, state: State, anchors: Scores, sums: Scores, ends: NDArray[np.int64]) -> None:
        """What each lane carries on: the chunk after its last token, or that chunk as far as it is."""
        lanes, chunk = np.arange(anchors.shape[1]), ends // CHUNK
        rest = ends % CHUNK
        begun = sums[np.minimum(chunk, len(sums) - 1), rest - 1, lanes]
        state["anchor"][:] = anchors[chunk, lanes]
        state["sum"][:] = np.where(rest[:, None] > 0, begun, 0.0)

    def _one(self, state: State, row: NDArray[np.float64], place: NDArray[np.int64]) -> NDArray[np.float64]:
        anchor, total = state["anchor"], state["sum"]
        total += row * self._up[place]
        value = np.asarray(self._down[place] * (anchor + self._rate * total))
        full = place == CHUNK - 1
        if full.any():
            anchor[full], total[full] = value[full], 0.0
        return value


class ShortEmaPool:
    """The same token by token, for half-lives so short that a chunk's weights would leave float64."""

    def __init__(self, half_lives: Sequence[float]) -> None:
        self._rate = 1.0 - 2.0 ** (-1.0 / np.asarray(half_lives, np.float64))

    def blank(self, lanes: int) -> State:
        """The value."""
        return {"value": np.zeros((lanes, len(self._rate)))}

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """The averages after each token."""
        out, value = np.empty_like(scores), state["value"]
        for t, row in enumerate(scores):
            out[t] = value = value + self._rate * (row - value)
        state["value"][:] = extent.last(out)
        return out


class RunPool:
    """v_t = v_{t−1} + 1 where s_t ≥ level, else 0."""

    def __init__(self, levels: Sequence[float]) -> None:
        self._levels = np.asarray(levels, np.float64)

    def blank(self, lanes: int) -> State:
        """The run."""
        return {"run": np.zeros((lanes, len(self._levels)))}

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """The runs after each token."""
        out = run_lengths(scores >= self._levels, state["run"])
        state["run"][:] = extent.last(out)
        return out


class CumulativePool:
    """v_t = max(0, v_{t−1} + s_t − allowance) (Page, 1954): the sum so far, less the least that it ever was."""

    def __init__(self, allowances: Sequence[float]) -> None:
        self._allowances = np.asarray(allowances, np.float64)

    def blank(self, lanes: int) -> State:
        """The sum and its least value."""
        shape = (lanes, len(self._allowances))
        return {"sum": np.zeros(shape), "lowest": np.zeros(shape)}

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """The values after each token."""
        sums = _running_sum(scores - self._allowances, state["sum"])
        lowest = np.minimum(np.minimum.accumulate(sums, axis=0), state["lowest"])
        state["sum"][:], state["lowest"][:] = extent.last(sums), extent.last(lowest)
        return sums - lowest


class Hold:
    """h_t = min(v_{t−n+1} … v_t): at or above the threshold exactly where n tokens in a row are."""

    def __init__(self, tokens: int, checks: int) -> None:
        self._tokens, self._checks = tokens, checks

    def blank(self, lanes: int) -> State:
        """The last n − 1 values, minus infinity before there were so many."""
        if self._tokens == 1:
            return {}
        return {"past": np.full((lanes, self._tokens - 1, self._checks), -np.inf)}

    def push(self, state: State, pooled: Scores, extent: Extent) -> Scores:
        """Sliding minima."""
        past = self._tokens - 1
        if not past:
            return pooled
        joined = np.concatenate([state["past"].swapaxes(0, 1), pooled])
        lanes = np.arange(joined.shape[1])
        ends = np.broadcast_to(extent.ends(len(pooled)), lanes.shape)
        state["past"][:] = joined[ends[:, None] + np.arange(past), lanes[:, None]]
        return _sliding_minimum(joined, self._tokens)


class Pools:
    """The pools of all checks; checks that pool alike share one array. Holds no state of its own."""

    def __init__(self, poolings: Sequence[Pooling], holds: Sequence[int]) -> None:
        self._groups: list[tuple[NDArray[np.intp] | slice, Pool, Hold, str]] = []
        kinds = [(_kind(p), hold) for p, hold in zip(poolings, holds, strict=True)]
        for number, kind in enumerate(sorted(set(kinds))):
            mine = [i for i, own in enumerate(kinds) if own == kind]
            columns = slice(None) if len(mine) == len(kinds) else np.asarray(mine)
            pool, hold = make_pool([poolings[i] for i in mine]), Hold(kind[1], len(mine))
            self._groups.append((columns, pool, hold, f"pool {number} "))

    def blank(self, lanes: int) -> State:
        """What so many lanes carry before their first token."""
        return {
            prefix + name: array
            for _, pool, hold, prefix in self._groups
            for name, array in {**pool.blank(lanes), **hold.blank(lanes)}.items()
        }

    def push(self, state: State, scores: Scores, extent: Extent) -> Scores:
        """`[tokens, lanes, checks]` token scores, 0 for padding, to what is compared with the thresholds."""
        alone = len(self._groups) == 1
        out = scores if alone else np.empty_like(scores)
        for columns, pool, hold, prefix in self._groups:
            own = {n.removeprefix(prefix): a for n, a in state.items() if n.startswith(prefix)}
            pooled = hold.push(own, pool.push(own, scores[..., columns], extent), extent)
            if alone:
                return pooled
            out[..., columns] = pooled
        return out


class PoolBank:
    """Pools of one text with their state."""

    def __init__(self, poolings: Sequence[Pooling], holds: Sequence[int]) -> None:
        self._pools = Pools(poolings, holds)
        self._state = self._pools.blank(1)
        self._tokens = 0

    def push(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[tokens, checks]` token scores to what is compared with the thresholds."""
        if not len(scores):
            return scores
        extent = Extent(np.asarray([self._tokens]))
        self._tokens += len(scores)
        return self._pools.push(self._state, scores[:, None], extent)[:, 0]


def make_pool(poolings: Sequence[Pooling]) -> Pool:
    """One pool for checks of one kind."""
    first = poolings[0]
    if isinstance(first, Mean):
        return MeanPool([p.min_tokens for p in poolings if isinstance(p, Mean)])
    if isinstance(first, TopKMean):
        return TopKPool([p.k for p in poolings if isinstance(p, TopKMean)])
    if isinstance(first, Ema):
        kind = ShortEmaPool if _short(first) else EmaPool
        return kind([p.half_life for p in poolings if isinstance(p, Ema)])
    if isinstance(first, LongestRun):
        return RunPool([p.level for p in poolings if isinstance(p, LongestRun)])
    if isinstance(first, Cumulative):
        return CumulativePool([p.allowance for p in poolings if isinstance(p, Cumulative)])
    return MaxPool()


def run_lengths(holds: NDArray[np.bool_], before: NDArray[Any]) -> Scores:
    """For how many tokens in a row `[tokens, …]` something has held, after each; `before` the first it was so many."""
    if len(holds) == 1:
        return np.where(holds[0], before + 1.0, 0.0)[None]
    at = np.arange(len(holds)).reshape(-1, *([1] * (holds.ndim - 1)))
    broken = np.maximum.accumulate(np.where(holds, -1, at), axis=0)
    return np.where(broken < 0, before + at + 1.0, at - broken)


def _kind(pooling: Pooling) -> str:
    return "ema, short" if isinstance(pooling, Ema) and _short(pooling) else pooling.kind


def _short(pooling: Ema) -> bool:
    return CHUNK / pooling.half_life > _LARGEST


def _running_sum(scores: Scores, before: NDArray[np.float64]) -> Scores:
    if len(scores) == 1:
        return before + scores
    out = scores.copy()
    out[0] += before
    return np.cumsum(out, axis=0, out=out)


def _sliding_minimum(values: Scores, width: int) -> Scores:
    """Along the first axis, of every `width` values in a row."""
    covered = 1
    while covered < width:
        step = min(covered, width - covered)
        values = np.minimum(values[:-step], values[step:])
        covered += step
    return values
