"""One step of all rules over a block of tokens: scores are pooled, compared with thresholds and combined.

A block is `[tokens, lanes, checks]`, a lane one sequence. Lanes may be of different lengths; behind a lane's last
token stands padding, which scores 0, reaches nothing and leaves no trace in the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.pooling import Extent, Scores, State, run_lengths
from monitor.policy.rules.program import Program

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Lanes:
    """The sequences of a block: what they carry, which is written in place, and which rules and checks look at them."""

    state: State
    armed: Bools
    """`[lanes, rules]` that look at the sequence's phase and have not fired in it."""
    reading: Bools
    """`[lanes, checks]` that look at the sequence's phase."""


@dataclass(frozen=True, eq=False)
class InSession:
    """Pooled scores of the checks with `scope: session`, of one lane."""

    lane: int
    pooled: NDArray[np.float64]
    """`[tokens, checks in session]`; minus infinity for tokens that the session has seen before."""
    counts: NDArray[np.int64]
    """As `pooled`: tokens of the session that each check has counted so far."""


@dataclass(frozen=True, eq=False)
class Step:
    """What became of a block."""

    pooled: Scores
    """`[tokens, lanes, checks]`; minus infinity for padding."""
    thresholds: NDArray[np.float64]
    """`[checks]`, or as `pooled`."""
    reached: Bools
    """As `pooled`: checks at their thresholds."""
    holds: Bools | None
    """`[tokens, lanes, leaves]`: conditions that hold; None where there are none."""
    stands: Bools | None
    """`[tokens, lanes, combined]`: combined rules that have held for as many tokens as they ask; None likewise."""
    hits: Bools
    """`[tokens, lanes, rules]` that would fire."""

    def threshold(self, token: int, lane: int, check: int) -> float:
        """The threshold of a check at a token."""
        fixed = self.thresholds.ndim == 1
        return float(self.thresholds[check] if fixed else self.thresholds[token, lane, check])


def step(
    program: Program, lanes: Lanes, scores: Scores, extent: Extent, sessions: Sequence[InSession] = ()
) -> Step:
    """Pool the scores, compare them and combine what was reached. What fires is in `hits`; who acts on it disarms it.

    How far the checks came is noted by `settle`, once detections were made from what was known before.
    """
    state, tokens = lanes.state, len(scores)
    pooled = program.pools.push(state, scores, extent)
    counts = (extent.before + np.arange(1, tokens + 1)[:, None])[..., None]
    state["tokens"] += np.asarray(extent.ends(tokens)).reshape(-1, 1)
    if sessions:
        pooled, counts = _with_sessions(program, pooled, counts, sessions)
    real = None if extent.lengths is None else (np.arange(tokens)[:, None] < extent.lengths)[..., None]
    if real is not None:
        pooled = np.where(real, pooled, -np.inf)
    thresholds = program.thresholds.at(counts)
    reached = (pooled >= thresholds) & lanes.reading
    hits = reached[..., : len(program.simple)]
    holds = stands = None
    if len(program.combined):
        alone, hits = hits, np.zeros((*scores.shape[:2], len(program.rules)), bool)
        hits[..., program.simple] = alone
        holds = _holding(program, state, reached[..., program.leaves], extent)
        stands = _combined(program, state, holds, extent)
        hits[..., program.combined] = stands if real is None else stands & real
    return Step(pooled, thresholds, reached, holds, stands, hits & lanes.armed)


def settle(program: Program, lanes: Lanes, taken: Step) -> None:
    """Note how far every check came: its highest pooled score, or the one nearest to its threshold."""
    best, limit, reading = lanes.state["best"], lanes.state["best_threshold"], lanes.reading
    if not program.thresholds.vary:
        np.maximum(best, taken.pooled.max(axis=0), out=best, where=reading)
        return
    pooled, thresholds = taken.pooled, taken.thresholds
    margin = pooled - thresholds
    if len(margin) == 1:
        near, there = pooled[0], thresholds[0]
        beyond = margin[0]
    else:
        lane, check = np.ogrid[: margin.shape[1], : margin.shape[2]]
        at = margin.argmax(axis=0), lane, check
        near, there, beyond = pooled[at], thresholds[at], margin[at]
    nearer = reading & (beyond > best - limit)
    np.copyto(best, near, where=nearer)
    np.copyto(limit, there, where=nearer)


def nearest(
    program: Program, lanes: Lanes, taken: Step, lane: int, check: int, tokens: int
) -> tuple[float, float]:
    """How far a check has come and the threshold there, with the first `tokens` tokens of a step not settled yet."""
    vary, state = program.thresholds.vary, lanes.state
    best = float(state["best"][lane, check])
    limit = float(state["best_threshold"][lane, check] if vary else program.thresholds.fixed[check])
    if not (lanes.reading[lane, check] and tokens):
        return best, limit
    pooled = taken.pooled[:tokens, lane, check]
    limits = taken.thresholds[:tokens, lane, check] if vary else np.full(tokens, limit)
    at = int((pooled - limits).argmax())
    if pooled[at] - limits[at] > best - limit:
        return float(pooled[at]), float(limits[at])
    return best, limit


def _with_sessions(
    program: Program, pooled: Scores, counts: NDArray[np.int64], sessions: Sequence[InSession]
) -> tuple[Scores, NDArray[np.int64]]:
    pooled, counts = pooled.copy(), np.broadcast_to(counts, pooled.shape).copy()
    for found in sessions:
        tokens = len(found.pooled)
        pooled[:tokens, found.lane, program.in_session] = found.pooled
        counts[:tokens, found.lane, program.in_session] = found.counts
    return pooled, counts


def _holding(program: Program, state: State, reached: Bools, extent: Extent) -> Bools:
    """Which conditions hold after each token: those reached now, and those that still last."""
    clock = state["clock"] + np.arange(1, len(reached) + 1)[:, None, None]
    state["clock"] += np.asarray(extent.ends(len(reached))).reshape(-1, 1)
    lasting = np.where(reached, clock + program.lasting - 1, -np.inf)
    np.maximum(lasting[0], state["until"], out=lasting[0])
    until = np.maximum.accumulate(lasting, axis=0)
    state["until"][:] = until[-1]
    return np.asarray(until >= clock)


def _combined(program: Program, state: State, holds: Bools, extent: Extent) -> Bools:
    """Which combined rules have held for as many tokens in a row as they ask, after each token."""
    tokens, lanes, leaves = holds.shape
    now = program.gates.evaluate(holds.reshape(-1, leaves)).reshape(tokens, lanes, -1)
    if (program.held == 1).all():
        return now
    streak = run_lengths(now, state["streak"])
    state["streak"][:] = extent.last(streak)
    return np.asarray(streak >= program.held)
