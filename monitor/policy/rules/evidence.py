"""The tokens that each check's score rests on: a few per check, kept while a request runs.

Knows scores and readings of tokens it was shown. Does not know thresholds or pooling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.pooling import Scores, State
from monitor.policy.rules.program import Program
from monitor.policy.rules.state import TOKENS, PhaseState, Row
from monitor.policy.rules.weights import Active
from monitor.records import Evidence, FeatureReading, TokenText

FEATURES = 3
"""Features named per evidence token."""
_SPARE_ROWS = 64


@dataclass(frozen=True)
class Tokens:
    """Tokens of one request in one step, special ones left out."""

    positions: NDArray[np.int64]
    """`[tokens]`"""
    token_ids: tuple[int, ...]
    active: Active
    first: int
    """Row of the first token in `active`."""

    def row(self, token: int) -> Row:
        """What was read of a token."""
        columns, values = self.active.of(self.first + token)
        return self.token_ids[token], columns.copy(), values.copy()


def add(program: Program, state: State, scores: Scores, members: list[tuple[PhaseState, Tokens]]) -> None:
    """Keep the best tokens of `[tokens, lanes, checks]` scores; either one token per lane or one lane."""
    done = ~state["reading"]
    done[:, : len(program.simple)] |= (state["fired"] | ~state["watching"])[:, program.simple]
    if len(scores) == 1:
        for lane in _insert(
            state, scores[0], np.asarray([t.positions[0] for _, t in members])[:, None], done
        ):
            phase, tokens = members[lane]
            _keep(program, phase, tokens, {0})
        return
    best = np.argsort(-scores[:, 0], axis=0, kind="stable")[:TOKENS]
    positions = members[0][1].positions
    kept: set[int] = set()
    for token in best:
        values = np.take_along_axis(scores[:, 0], token[None], axis=0)
        taken = ~done & (values > state["least"])
        if len(_insert(state, values, positions[token][None], done)):
            kept.update(token[taken[0]].tolist())
    if kept:
        _keep(program, members[0][0], members[0][1], kept)


def _insert(
    state: State, values: Scores, places: NDArray[np.int64], done: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Take `[lanes, checks]` scores at `places` in where they beat the least kept one; lanes that took any.

    Of equal scores the earlier token stays.
    """
    lanes, checks = np.nonzero((values > state["least"]) & ~done)
    if not len(lanes):
        return lanes
    kept, where = state["evidence"][lanes, checks], state["places"][lanes, checks]
    low = kept.min(axis=1, keepdims=True)
    rows, slot = np.arange(len(kept)), np.where(kept == low, where, -1).argmax(axis=1)
    kept[rows, slot] = values[lanes, checks]
    where[rows, slot] = np.broadcast_to(places, values.shape)[lanes, checks]
    state["evidence"][lanes, checks], state["places"][lanes, checks] = kept, where
    state["least"][lanes, checks] = kept.min(axis=1)
    return np.unique(lanes)


def _keep(program: Program, phase: PhaseState, tokens: Tokens, which: set[int]) -> None:
    for token in which:
        phase.rows[int(tokens.positions[token])] = tokens.row(token)
    if len(phase.rows) > 2 * TOKENS * len(program.checks) + _SPARE_ROWS:
        used = set(phase.lanes["places"].ravel().tolist()) | {int(tokens.positions[t]) for t in which}
        phase.rows = {place: row for place, row in phase.rows.items() if place in used}


def until(
    phase: PhaseState,
    tokens: Tokens,
    scores: Scores,
    check: int,
    count: int,
    token_text: TokenText,
    name: str,
) -> tuple[Evidence, ...]:
    """Evidence of a check at the first `count` tokens of a step that was not added yet, strongest first.

    `scores` are `[tokens]` of this check.
    """
    state = phase.lanes
    found = [
        (float(score), int(place), None)
        for score, place in zip(state["evidence"][0, check], state["places"][0, check], strict=True)
        if score > 0
    ]
    fresh = [(float(scores[t]), int(tokens.positions[t]), t) for t in range(count) if scores[t] > 0]
    best = sorted([*found, *fresh], key=lambda entry: (-entry[0], entry[1]))[:TOKENS]
    program = phase.program
    return tuple(
        _evidence(
            program, check, score, place, phase.rows[place] if t is None else tokens.row(t), token_text, name
        )
        for score, place, t in best
    )


def _evidence(
    program: Program, check: int, score: float, place: int, row: Row, token_text: TokenText, name: str
) -> Evidence:
    token_id, columns, values = row
    share = [float(v) * program.weights.share(int(c), check) for c, v in zip(columns, values, strict=True)]
    features = len(program.watch.features)
    best = [
        i for i in np.argsort([-s for s in share], kind="stable") if share[i] > 0 and columns[i] < features
    ]
    readings = tuple(
        FeatureReading(program.watch.features[columns[i]], float(values[i])) for i in best[:FEATURES]
    )
    return Evidence(place, token_id, token_text(token_id), score, readings, name)
