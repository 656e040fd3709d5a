"""What the rules of a policy set carry for every request: one row of arrays each, in a table that grows.

A row belongs to one request from `take` to `give`. It holds the state of the phase that the request is in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.policy.rules.pooling import State
from monitor.policy.rules.program import Program
from monitor.policy.rules.step import Lanes
from monitor.records import Phase

FIRST = 8
"""Rows of a new table; doubled when they do not suffice."""
PHASES = (Phase.PROMPT, Phase.RESPONSE)
"""As the table numbers them."""
NO_PHASE = -1
Indices = NDArray[np.intp]


def blank(program: Program, lanes: int) -> State:
    """The numbers of so many lanes before their first token."""
    checks = len(program.checks)
    return {
        **program.pools.blank(lanes),
        "tokens": np.zeros((lanes, 1)),
        "clock": np.zeros((lanes, 1)),
        "best": np.full((lanes, checks), -np.inf),
        "best_threshold": np.zeros((lanes, checks if program.thresholds.vary else 0)),
        "until": np.full((lanes, len(program.leaves)), -np.inf),
        "streak": np.zeros((lanes, len(program.combined))),
    }


class Layout:
    """Where each named array of a state stands in a row of numbers."""

    def __init__(self, one: Mapping[str, NDArray[np.float64]]) -> None:
        """`one`: a single lane before its first token."""
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        end = 0
        for name, array in one.items():
            shape = array.shape[1:]
            self._places[name] = end, shape
            end += math.prod(shape)
        self.blank = np.concatenate([array.ravel() for array in one.values()])
        """`[numbers]` of a lane before its first token."""

    def place(self, name: str) -> int:
        """Where the first number of an array stands."""
        return self._places[name][0]

    def views(self, numbers: NDArray[np.float64]) -> State:
        """Rows `[lanes, numbers]` as named arrays, to be written in place."""
        lanes = len(numbers)
        return {
            name: numbers[:, start : start + math.prod(shape)].reshape(lanes, *shape)
            for name, (start, shape) in self._places.items()
        }


class Table:
    """The rows of all requests. Whoever uses it holds the lock of the rules."""

    def __init__(self, program: Program) -> None:
        self.layout = Layout(blank(program, 1))
        rules, checks, holders = len(program.rules), len(program.checks), len(program.holders)
        self._tokens, self._leaves = self.layout.place("tokens"), program.leaves
        self._watched = np.asarray([program.watches(phase) for phase in PHASES])
        self._read = np.asarray([program.reads(phase) for phase in PHASES])
        self.numbers = np.tile(self.layout.blank, (FIRST, 1))
        """`[rows, numbers]` as in `layout`."""
        self.rules = np.zeros((FIRST, rules), bool)
        """`[rows, rules]` that apply to the request."""
        self.checks = np.zeros((FIRST, checks), bool)
        """`[rows, checks]` that apply to the request."""
        self.watching = np.zeros((FIRST, rules), bool)
        """`[rows, rules]` that look at the request's phase."""
        self.armed = np.zeros((FIRST, rules), bool)
        """`[rows, rules]` those among them that have not fired in it."""
        self.reading = np.zeros((FIRST, checks), bool)
        """`[rows, checks]` that look at the request's phase."""
        self.phase = np.full(FIRST, NO_PHASE, np.int8)
        """`[rows]` 0 in the prompt, 1 in the response."""
        self.shown = np.zeros(FIRST, np.int64)
        """`[rows]` positions below this one were shown to the rules."""
        self.judged = np.zeros(FIRST, np.int64)
        """`[rows]` tokens of all phases that counted: neither attention sinks nor special ones."""
        self.left = np.zeros((FIRST, holders))
        """`[rows, holders]` tokens for which a policy's clamps still hold; infinite where to the end."""
        self.age = np.zeros(FIRST, np.int64)
        """`[rows]` grows with every phase of every request that a row was for."""
        self.special = np.zeros(FIRST, np.intp)
        """`[rows]` which tokens the rules pass over, by the number that the rules give a set of them."""
        self.session = np.zeros(FIRST, bool)
        """`[rows]` True where the request belongs to a session."""
        self._free = list(range(FIRST))

    def __len__(self) -> int:
        return len(self.phase)

    def take(self) -> int:
        """A row for a new request."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self.shown[row] = self.judged[row] = 0
        self.left[row] = 0.0
        self.phase[row] = NO_PHASE
        self.age[row] += 1
        return row

    def give(self, row: int) -> None:
        """The request is over."""
        self.age[row] += 1
        self._free.append(row)

    def begin(self, rows: Indices, phases: NDArray[np.int8]) -> None:
        """A phase of some requests begins. What became of conditions in the phase before is remembered."""
        again = rows[self.phase[rows] != NO_PHASE] if len(self._leaves) else rows[:0]
        past = self.layout.views(self.numbers[again])
        self.phase[rows] = phases
        self.age[rows] += 1
        self.numbers[rows] = self.layout.blank
        self.watching[rows] = self.armed[rows] = self._watched[phases] & self.rules[rows]
        self.reading[rows] = self._read[phases] & self.checks[rows]
        if len(again):
            self._remember(again, past)

    def _remember(self, rows: Indices, past: State) -> None:
        numbers = self.numbers[rows]
        now = self.layout.views(numbers)
        now["until"][:], now["clock"][:] = past["until"], past["clock"]
        now["best"][:, self._leaves] = past["best"][:, self._leaves]
        if now["best_threshold"].size:
            now["best_threshold"][:, self._leaves] = past["best_threshold"][:, self._leaves]
        self.numbers[rows] = numbers

    def counted(self, rows: Indices) -> NDArray[np.int64]:
        """`[rows]` tokens of the phase that counted so far."""
        return np.asarray(self.numbers[rows, self._tokens], np.int64)

    def lanes(self, rows: Indices) -> tuple[Lanes, NDArray[np.float64]]:
        """A copy of some rows to work on, and its numbers to `keep` afterwards."""
        numbers = self.numbers[rows]
        return Lanes(self.layout.views(numbers), self.armed[rows], self.reading[rows]), numbers

    def keep(self, rows: Indices, numbers: NDArray[np.float64], armed: NDArray[np.bool_]) -> None:
        """What came of `lanes`."""
        self.numbers[rows], self.armed[rows] = numbers, armed

    def of(self, row: int) -> State:
        """The numbers of one row, to be written in place."""
        return self.layout.views(self.numbers[row : row + 1])

    def _grow(self) -> None:
        before = len(self)
        self.numbers, self.left = _doubled(self.numbers), _doubled(self.left)
        self.rules, self.checks = _doubled(self.rules), _doubled(self.checks)
        self.watching, self.armed = _doubled(self.watching), _doubled(self.armed)
        self.reading, self.phase = _doubled(self.reading), _doubled(self.phase)
        self.shown, self.age = _doubled(self.shown), _doubled(self.age)
        self.special, self.session = _doubled(self.special), _doubled(self.session)
        self.judged = _doubled(self.judged)
        self._free = list(range(before, 2 * before))


def _doubled(array: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([array, np.zeros_like(array)])
