"""The weights of all checks over the watched columns, sparse: a token's scores cost what is active times who reads it.

A row's scores do not depend on which rows stand beside it, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check
from monitor.records import Readings, WatchPlan

Indices = NDArray[np.intp]
_CACHED = 1 << 19
"""Readings that a processor's cache holds with what is made of them."""


@dataclass(frozen=True, eq=False)
class Active:
    """Readings that are not zero, row by row, columns ascending."""

    starts: Indices
    """`[rows + 1]` where each row begins in the arrays below, and where the last ends."""
    columns: Indices
    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def counts(self) -> Indices:
        """`[rows]` readings of each."""
        return np.diff(self.starts)

    def some(self, rows: Indices) -> Active:
        """Some of the rows, in that order."""
        count = len(rows)
        if count and rows[-1] - rows[0] == count - 1 and (count < 3 or bool((np.diff(rows) == 1).all())):
            starts = self.starts[rows[0] : rows[0] + count + 1]
            own = slice(int(starts[0]), int(starts[-1]))
            return Active(starts - starts[0], self.columns[own], self.values[own])
        counts = self.counts[rows]
        index = spread(self.starts[rows], counts)
        return Active(np.concatenate([[0], np.cumsum(counts)]), self.columns[index], self.values[index])


def active(readings: Readings) -> Active:
    """What is not zero in readings `[rows, watched]`; NaN is not."""
    rows, width = readings.shape
    step = max(1, _CACHED // max(width, 1))
    flat = np.ascontiguousarray(readings).ravel()
    marks = np.zeros(-(-min(step, rows) * width // 8) * 8, bool)
    pieces = [_not_zero(flat[i * width : (i + step) * width], i * width, marks) for i in range(0, rows, step)]
    found = pieces[0] if len(pieces) == 1 else np.concatenate([*pieces, np.zeros(0, np.intp)])
    starts = np.searchsorted(found, np.arange(rows + 1) * width)
    return Active(starts, found % max(width, 1), flat.take(found))


def _not_zero(values: NDArray[np.float32], first: int, marks: NDArray[np.bool_]) -> Indices:
    """Where values are not zero, numbered from `first`; few are. Looks at eight at a time.

    `marks` has room for a mark of each value and is written to.
    """
    marks = marks[: -(-len(values) // 8) * 8]
    marks[len(values) :] = False
    np.not_equal(values, 0, out=marks[: len(values)])
    words = marks.view(np.uint64)
    there = np.flatnonzero(words != 0)
    inside = np.flatnonzero(words.take(there).view(bool))
    return np.asarray((there.take(inside >> 3) << 3) + (inside & 7) + first)


def spread(firsts: NDArray[Any], counts: Indices) -> NDArray[Any]:
    """`counts[i]` numbers in a row from `firsts[i]` on, one after the other."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(firsts - before, counts))


@dataclass(frozen=True, eq=False)
class Shares:
    """What readings give to scores: one share for each active reading and each check that reads its column."""

    places: Indices
    """`[shares]` whose score it is part of: row · checks + check."""
    readings: Indices
    """`[shares]` which reading it comes from, an index in `Active.values`."""
    values: NDArray[np.float64]
    """`[shares]` weight · reading."""


class Weights:
    """The weights of all checks, by watched column."""

    def __init__(self, watch: WatchPlan, checks: Sequence[Check]) -> None:
        self.checks = len(checks)
        table: list[dict[int, float]] = [{} for _ in range(len(watch))]
        for i, check in enumerate(checks):
            for feature in check.features:
                row = table[watch.column(feature.index)]
                row[i] = row.get(i, 0.0) + feature.weight
            for other in (check.probe, check.signal):
                if other is not None:
                    table[watch.column(other)][i] = 1.0
        most = max((len(row) for row in table), default=0)
        self._layers = [_layer(table, n) for n in range(most)]
        """The first pair of every column, then the second of those that have two, and so on."""

    def shares(self, found: Active) -> Shares:
        """All shares of some rows; those of one score stand in an order that other rows do not change."""
        columns, values, readings = found.columns, found.values, np.arange(len(found.columns))
        base = np.repeat(np.arange(len(found)) * self.checks, found.counts)
        parts = []
        for number, (check, weight) in enumerate(self._layers):
            if number:  # few columns are read by several checks
                mine = (check.take(columns) >= 0).nonzero()[0]
                base, columns, values, readings = base[mine], columns[mine], values[mine], readings[mine]
            parts.append((base + check.take(columns), readings, values * weight.take(columns)))
        if not parts:
            return Shares(base, readings, np.zeros(len(values)))
        return Shares(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def scores(self, shares: Shares, rows: int) -> NDArray[np.float64]:
        """Σ weight · reading, `[rows, checks]`."""
        sums = np.bincount(shares.places, shares.values, rows * self.checks)
        return np.asarray(sums.reshape(rows, self.checks), np.float64)  # integers where there are no shares


def _layer(table: Sequence[Mapping[int, float]], n: int) -> tuple[Indices, NDArray[np.float64]]:
    """`[columns]` the n-th check that reads each and its weight. Nobody: −1, in the first layer any check by 0."""
    pairs = [sorted(row.items())[n] if len(row) > n else (-1 if n else 0, 0.0) for row in table]
    return np.asarray([i for i, _ in pairs], np.intp), np.asarray([w for _, w in pairs], np.float64)
