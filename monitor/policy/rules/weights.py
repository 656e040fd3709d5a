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
_CACHED = 1 << 17
"""Readings that are looked at together: as many as a processor's cache holds with what is made of them."""
_TOGETHER = 1024
"""Rows that are scored together, for the same reason."""


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
        counts = self.counts[rows]
        index = spread(self.starts[rows], counts)
        return Active(np.concatenate([[0], np.cumsum(counts)]), self.columns[index], self.values[index])

    def between(self, first: int, last: int) -> Active:
        """The rows from `first` to before `last`."""
        starts = self.starts[first : last + 1]
        own = slice(int(starts[0]), int(starts[-1]))
        return Active(starts - starts[0], self.columns[own], self.values[own])


def active(readings: Readings) -> Active:
    """What is not zero in readings `[rows, watched]`; NaN is not."""
    rows, width = readings.shape
    step = max(1, _CACHED // max(width, 1))
    parts = [_not_zero(readings[i : i + step]) for i in range(0, max(rows, 1), step)]
    if len(parts) == 1:
        return parts[0]
    counts = np.concatenate([part.counts for part in parts])
    columns = np.concatenate([part.columns for part in parts])
    values = np.concatenate([part.values for part in parts])
    return Active(np.concatenate([[0], np.cumsum(counts)]), columns, values)


def _not_zero(readings: Readings) -> Active:
    """Looks at eight at a time, because few are not zero."""
    rows, width = readings.shape
    flat = np.ascontiguousarray(readings).ravel()
    marks = np.zeros(-(-len(flat) // 8) * 8, bool)
    np.not_equal(flat, 0, out=marks[: len(flat)])
    words = marks.view(np.uint64)
    there = (words != 0).nonzero()[0]
    inside = words.take(there).view(bool).nonzero()[0]
    places = (there.take(inside >> 3) << 3) + (inside & 7)
    starts = np.searchsorted(places, np.arange(rows + 1) * width)
    return Active(starts, places % max(width, 1), flat.take(places))


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


@dataclass(frozen=True, eq=False)
class Scored:
    """What was read of some tokens, and what it comes to."""

    active: Active
    shares: tuple[Shares, ...]
    """All that the scores are made of. Empty where there are many tokens: the shares of few are soon found again."""
    scores: NDArray[np.float64]
    """`[tokens, checks]` Σ weight · reading."""


_NONE = np.zeros(0, np.intp)


class Weights:
    """The weights of all checks, by watched column."""

    def __init__(self, watch: WatchPlan, checks: Sequence[Check]) -> None:
        self.checks, self._features = len(checks), len(watch.features)
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

    def scored(self, found: Active) -> Scored:
        """Scores of all rows."""
        if len(found) <= _TOGETHER:
            shares = self.shares(found)
            return Scored(found, shares, self._sums(shares, len(found)))
        scores = np.empty((len(found), self.checks))
        for first in range(0, len(found), _TOGETHER):
            part = found.between(first, min(first + _TOGETHER, len(found)))
            scores[first : first + len(part)] = self._sums(self.shares(part), len(part))
        return Scored(found, (), scores)

    def shares(self, found: Active) -> tuple[Shares, ...]:
        """All shares of some rows: those of the first check that reads each column, of the second, and so on."""
        columns, values, readings = found.columns, found.values, np.arange(len(found.columns))
        base = np.repeat(np.arange(len(found)) * self.checks, found.counts)
        parts = []
        for number, (check, weight) in enumerate(self._layers):
            if number:
                mine = (check.take(columns) >= 0).nonzero()[0]
                base, columns = base.take(mine), columns.take(mine)
                values, readings = values.take(mine), readings.take(mine)
            parts.append(Shares(base + check.take(columns), readings, values * weight.take(columns)))
        return tuple(parts)

    def strongest(
        self, scored: Scored, tokens: Indices, checks: Indices, most: int
    ) -> tuple[Indices, Indices, Indices, NDArray[np.float32]]:
        """The features that give most to the scores of pairs of a token and a check, `most` of each at most.

        Gives pair, rank from 0 on, column and reading of each; only what gives more than 0. Of equal ones the lower
        column comes first.
        """
        read, shares = scored.active, scored.shares
        if not shares or 4 * len(tokens) < len(read):
            read, tokens = read.some(tokens), np.arange(len(tokens))
            shares = self.shares(read)
        pairs = np.full(len(read) * self.checks, -1)
        pairs[tokens * self.checks + checks] = np.arange(len(tokens))
        found = [self._giving(read, part, pairs.take(part.places)) for part in shares]
        pair, reading, share = (np.concatenate([_NONE, *(own[i] for own in found)]) for i in range(3))
        # Complex numbers are sorted by their real parts, then by the imaginary ones.
        order = np.argsort(reading, kind="stable")
        order = order[np.argsort((pair - 1j * share)[order], kind="stable")]
        pair, reading = pair[order].astype(np.intp), reading[order].astype(np.intp)
        rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
        kept = (rank < most).nonzero()[0]
        return pair[kept], rank[kept], read.columns[reading[kept]], read.values[reading[kept]]

    def _giving(
        self, read: Active, part: Shares, pairs: Indices
    ) -> tuple[Indices, Indices, NDArray[np.float64]]:
        """Of the shares in `pairs` that features give: pair, reading and share. Probes and signals are no features."""
        own = ((pairs >= 0) & (part.values > 0)).nonzero()[0]
        own = own[read.columns.take(part.readings[own]) < self._features]
        return pairs[own], part.readings[own], part.values[own]

    def _sums(self, shares: tuple[Shares, ...], rows: int) -> NDArray[np.float64]:
        out = np.zeros(rows * self.checks)
        for parts in (shares[:1], shares[1:]):
            if parts:
                places = np.concatenate([part.places for part in parts])
                out += np.bincount(places, np.concatenate([part.values for part in parts]), len(out))
        return out.reshape(rows, self.checks)


def _layer(table: Sequence[Mapping[int, float]], n: int) -> tuple[Indices, NDArray[np.float64]]:
    """`[columns]` the n-th check that reads each and its weight. Nobody: −1, in the first layer any check by 0."""
    pairs = [sorted(row.items())[n] if len(row) > n else (-1 if n else 0, 0.0) for row in table]
    return np.asarray([i for i, _ in pairs], np.intp), np.asarray([w for _, w in pairs], np.float64)
