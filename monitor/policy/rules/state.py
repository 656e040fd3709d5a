"""What rules carry from token to token: one lane of arrays per request and phase.

Knows names and shapes of the arrays. Does not know how they change (`scoring`, `evidence`) or who shares them
(`batch`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.pooling import State
from monitor.policy.rules.program import Program
from monitor.records import Phase

TOKENS = 5
"""Evidence tokens kept per check."""

Row = tuple[int, NDArray[np.intp], NDArray[np.float32]]
"""Of a token: its id, and the columns and values of its readings that are not zero."""


Saved = tuple[State, dict[int, Row]]
"""A copy of one lane."""


@dataclass(frozen=True)
class Masks:
    """Who looks at a phase of a request."""

    watching: NDArray[np.bool_]
    """`[rules]` that may fire."""
    reading: NDArray[np.bool_]
    """`[checks]` that are read."""


def blank(program: Program, lanes: int) -> State:
    """So many lanes before their first token."""
    checks, rules = len(program.checks), len(program.rules)
    return {
        **program.pools.blank(lanes),
        "tokens": np.zeros((lanes, 1), np.int64),
        "clock": np.zeros((lanes, 1), np.int64),
        "best": np.full((lanes, checks), -np.inf),
        "best_threshold": np.zeros((lanes, checks if program.thresholds.vary else 0)),
        "fired": np.zeros((lanes, rules), bool),
        "watching": np.zeros((lanes, rules), bool),
        "reading": np.zeros((lanes, checks), bool),
        "until": np.full((lanes, len(program.leaves)), -np.inf),
        "streak": np.zeros((lanes, len(program.combined)), np.int64),
        "evidence": np.zeros((lanes, checks, TOKENS)),
        "places": np.zeros((lanes, checks, TOKENS), np.int64),
        "least": np.zeros((lanes, checks)),
    }


def part(table: State, where: slice) -> State:
    """Some lanes, to be written in place."""
    return {name: array[where] for name, array in table.items()}


class PhaseState:
    """The rules' state in one phase of one request: a lane of a table, its own or a shared one."""

    def __init__(
        self, program: Program, phase: Phase, masks: Masks, before: PhaseState | None = None
    ) -> None:
        self.phase = phase
        self.program = program
        self.rows: dict[int, Row] = {}
        """Readings of tokens that evidence may rest on, by position."""
        self.table = blank(program, 1)
        self.lane = 0
        state = self.lanes
        state["watching"][:], state["reading"][:] = masks.watching, masks.reading
        if before is not None:
            self._go_on(before, state)

    @property
    def lanes(self) -> State:
        """Its one lane; to be written in place."""
        return part(self.table, slice(self.lane, self.lane + 1))

    def move(self, table: State, lane: int) -> None:
        """Copy its arrays to a lane of another table and live there."""
        for name, array in self.lanes.items():
            table[name][lane] = array[0]
        self.table, self.lane = table, lane

    def leave(self) -> None:
        """Live in a table of its own again."""
        self.table = {name: array.copy() for name, array in self.lanes.items()}
        self.lane = 0

    def save(self) -> Saved:
        """A copy, for `restore`."""
        return {name: array.copy() for name, array in self.lanes.items()}, dict(self.rows)

    def restore(self, saved: Saved) -> None:
        """As it was when it was saved, except that rules which fired since stay fired."""
        fired = self.lanes["fired"].copy()
        for name, array in self.lanes.items():
            array[:] = saved[0][name]
        self.lanes["fired"][:] |= fired
        self.rows = dict(saved[1])

    def _go_on(self, before: PhaseState, state: State) -> None:
        """Conditions are remembered from phase to phase."""
        earlier, leaves = before.lanes, self.program.leaves
        for name in ("until", "clock"):
            state[name][:] = earlier[name]
        state["best"][:, leaves] = earlier["best"][:, leaves]
        if self.program.thresholds.vary:
            state["best_threshold"][:, leaves] = earlier["best_threshold"][:, leaves]
        for name in ("evidence", "places", "least"):
            state[name][:, leaves] = earlier[name][:, leaves]
        self.rows.update(before.rows if len(leaves) else {})
