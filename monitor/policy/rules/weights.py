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
_DENSE = 1 << 20
"""Columns times checks for which a table of all weights is kept (8 MiB)."""


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

    def of(self, row: int) -> tuple[Indices, NDArray[np.float32]]:
        """Columns and values of one row."""
        own = slice(int(self.starts[row]), int(self.starts[row + 1]))
        return self.columns[own], self.values[own]

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


class Weights:
    """Compressed rows: watched column → (check, weight) pairs."""

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
        pairs = [(column, i, row[i]) for column, row in enumerate(table) for i in sorted(row)]
        self._keys = np.asarray([column * self.checks + i for column, i, _ in pairs], np.intp)
        """Ascending: columns, and checks in each."""
        self._weight = np.asarray([weight for _, _, weight in pairs], np.float64)
        self._dense: NDArray[np.float64] | None = None
        """The same weights by key, where they take little memory: found without a search."""
        if (size := self.checks * len(watch)) <= _DENSE:
            self._dense = np.zeros(size)
            self._dense[self._keys] = self._weight

    def scores(self, found: Active) -> NDArray[np.float64]:
        """Σ weight · reading, `[rows, checks]`."""
        rows, columns, values = len(found), found.columns, found.values
        base = np.repeat(np.arange(rows) * self.checks, found.counts)
        out, more = np.zeros(rows * self.checks), []
        for number, (check, weight) in enumerate(self._layers):
            if number:  # few columns are read by several checks
                mine = np.flatnonzero(check.take(columns) >= 0)
                base, columns, values = base[mine], columns[mine], values[mine]
            pairs = base + check.take(columns), values * weight.take(columns)
            if number:
                more.append(pairs)
            else:
                out += np.bincount(*pairs, len(out))
        if more:
            places, parts = (np.concatenate(own) for own in zip(*more, strict=True))
            out += np.bincount(places, parts, len(out))
        return np.asarray(out.reshape(rows, self.checks))

    def shares(self, columns: Indices, checks: Indices | int) -> NDArray[np.float64]:
        """The weight of each column in a check; 0 where the check does not read it."""
        if not len(self._keys):
            return np.zeros(len(columns))
        wanted = columns * self.checks + checks
        if self._dense is not None:
            return np.asarray(self._dense[wanted])
        at = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[at] == wanted, self._weight[at], 0.0)


def _layer(table: Sequence[Mapping[int, float]], n: int) -> tuple[Indices, NDArray[np.float64]]:
    """`[columns]` the n-th check that reads each and its weight. Nobody: −1, in the first layer any check by 0."""
    pairs = [sorted(row.items())[n] if len(row) > n else (-1 if n else 0, 0.0) for row in table]
    return np.asarray([i for i, _ in pairs], np.intp), np.asarray([w for _, w in pairs], np.float64)
