"""One step of all rules over some tokens of some requests: pooled, compared, combined.

Knows arrays `[tokens, lanes, checks]`. Does not know what a check reads, detections or evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.pooling import Scores, State
from monitor.policy.rules.program import Program


@dataclass(frozen=True)
class InSession:
    """Pooled scores of the checks with `scope: session`, of one lane."""

    lane: int
    pooled: Scores
    """`[tokens, checks in session]`; minus infinity for tokens that the session has seen before."""
    counts: NDArray[np.int64]
    """As `pooled`: tokens of the session that each check has counted so far."""


@dataclass(frozen=True)
class Step:
    """What became of some tokens."""

    pooled: Scores
    """`[tokens, lanes, checks]`"""
    thresholds: NDArray[np.float64]
    """`[checks]`, or as `pooled`."""
    holds: NDArray[np.bool_] | None
    """`[tokens, lanes, leaves]`: conditions that hold; None where there are none."""
    stands: NDArray[np.bool_] | None
    """`[tokens, lanes, combined]`: combined rules that have held for as many tokens as they ask; None likewise."""
    new: NDArray[np.bool_]
    """`[lanes, rules]` that fire now."""
    first: NDArray[np.intp]
    """`[lanes, rules]`: at which of the tokens."""

    def threshold(self, token: int, lane: int, check: int) -> float:
        """The threshold of a check at a token."""
        fixed = self.thresholds.ndim == 1
        return float(self.thresholds[check] if fixed else self.thresholds[token, lane, check])


def step(program: Program, state: State, scores: Scores, sessions: Sequence[InSession] = ()) -> Step:
    """Push scores `[tokens, lanes, checks]`. Marks nothing as fired and keeps no best score: see `settle`."""
    tokens = len(scores)
    pooled = program.pools.push(state, scores)
    counts = state["tokens"] + np.arange(1, tokens + 1)[:, None, None]
    state["tokens"] += tokens
    if sessions:
        pooled, counts = _with_sessions(program, pooled, counts, sessions)
    thresholds = program.thresholds.at(counts)
    reached = (pooled >= thresholds) & state["reading"]
    hits = reached[..., : len(program.simple)]
    holds = stands = None
    if len(program.combined):
        alone, hits = hits, np.zeros((*scores.shape[:2], len(program.rules)), bool)
        hits[..., program.simple] = alone
        holds = _holding(program, state, reached[..., program.leaves])
        hits[..., program.combined] = stands = _combined(program, state, holds)
    hits = hits & state["watching"] & ~state["fired"]
    if tokens == 1:
        at = np.broadcast_to(np.intp(0), hits[0].shape)
        return Step(pooled, thresholds, holds, stands, hits[0], at)
    return Step(pooled, thresholds, holds, stands, np.asarray(hits.any(axis=0)), hits.argmax(axis=0))


def settle(program: Program, state: State, taken: Step) -> None:
    """Note what fired and how far every check came."""
    state["fired"] |= taken.new
    best, reading = state["best"], state["reading"]
    if not program.thresholds.vary:
        np.maximum(best, taken.pooled.max(axis=0), out=best, where=reading)
        return
    limit = state["best_threshold"]
    for pooled, threshold in zip(taken.pooled, taken.thresholds, strict=True):
        nearer = reading & (pooled - threshold > best - limit)
        best[nearer], limit[nearer] = pooled[nearer], threshold[nearer]


def nearest(
    program: Program, state: State, taken: Step, lane: int, check: int, tokens: int
) -> tuple[float, float]:
    """How far a check has come and the threshold there, with the first `tokens` tokens of a step not settled yet."""
    best = float(state["best"][lane, check])
    vary = program.thresholds.vary
    limit = float(state["best_threshold"][lane, check] if vary else program.thresholds.fixed[check])
    if state["reading"][lane, check]:
        for t in range(tokens):
            pooled, threshold = float(taken.pooled[t, lane, check]), taken.threshold(t, lane, check)
            if pooled - threshold > best - limit:
                best, limit = pooled, threshold
    return best, limit


def _with_sessions(
    program: Program, pooled: Scores, counts: NDArray[np.int64], sessions: Sequence[InSession]
) -> tuple[Scores, NDArray[np.int64]]:
    pooled, counts = pooled.copy(), np.broadcast_to(counts, pooled.shape).copy()
    for found in sessions:
        pooled[:, found.lane, program.in_session] = found.pooled
        counts[:, found.lane, program.in_session] = found.counts
    return pooled, counts


def _holding(program: Program, state: State, reached: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which conditions hold after each token: those reached now, and those that still last."""
    clock = state["clock"] + np.arange(1, len(reached) + 1)[:, None, None]
    state["clock"] += len(reached)
    lasting = np.where(reached, clock + program.lasting - 1, -np.inf)
    lasting[0] = np.maximum(lasting[0], state["until"])
    until = np.maximum.accumulate(lasting, axis=0)
    state["until"][:] = until[-1]
    return np.asarray(until >= clock)


def _combined(program: Program, state: State, holds: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which combined rules have held for as many tokens in a row as they ask, after each token."""
    tokens, lanes, leaves = holds.shape
    now = program.gates.evaluate(holds.reshape(-1, leaves)).reshape(tokens, lanes, -1)
    if (program.held == 1).all():
        return now
    out = np.empty_like(now)
    for t in range(tokens):
        state["streak"][:] = np.where(now[t], state["streak"] + 1, 0)
        out[t] = state["streak"] >= program.held
    return out
