"""The weights of all checks over the watched columns, sparse: a token's scores cost what is active times who reads it.

A row's scores do not depend on which rows stand beside it, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check
from monitor.records import Readings, WatchPlan

Indices = NDArray[np.intp]
_CACHED = 1 << 17
"""Readings that are looked at together: as many as a processor's cache holds with what is made of them."""
_TOGETHER = 512
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
        return Active(_ends(counts), self.columns[index], self.values[index])

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
    return Active(_ends(counts), columns, values)


def _ends(counts: Indices) -> Indices:
    """`[rows + 1]` where rows of so many readings begin, and where the last ends."""
    ends = np.zeros(len(counts) + 1, np.intp)
    np.cumsum(counts, out=ends[1:])
    return ends


def _not_zero(readings: Readings) -> Active:
    """Looks at eight at a time, because few are not zero."""
    rows, width = readings.shape
    flat = np.ascontiguousarray(readings).ravel()
    marks = np.empty(-(-len(flat) // 8) * 8, bool)
    marks[len(flat) :] = False
    np.not_equal(flat, 0, out=marks[: len(flat)])
    words = marks.view(np.uint64)
    there = (words != 0).nonzero()[0]
    inside = words.take(there).view(bool).nonzero()[0]
    places = (there.take(inside >> 3) << 3) + (inside & 7)
    row = places // max(width, 1)  # numpy divides by one number many times as fast as it takes the remainder
    counts = np.bincount(row, minlength=rows)
    return Active(_ends(counts), places - row * width, flat.take(places))


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
class ScoredRows:
    """What was read of some tokens, and what it comes to."""

    active: Active
    shares: Shares | None
    """All that the scores are made of. None where there are many tokens: the shares of few are soon found again."""
    scores: NDArray[np.float64]
    """`[tokens, checks]` Σ weight · reading."""


_NONE, _NOTHING = np.zeros(0, np.intp), np.zeros(0)


class Weights:
    """The weights of all checks, by watched column."""

    def __init__(self, watch: WatchPlan, checks: Sequence[Check]) -> None:
        self.checks, self._features = len(checks), len(watch.features)
        self._layers = _layers(watch, checks, explained=False)
        """The first check that reads every column, then the second of those that have two, and so on."""
        explained = any(check.explains for check in checks)
        self._named = _layers(watch, checks, explained=True) if explained else None
        """The same with the features by which probes are explained; None where there are none."""

    def scored(self, found: Active) -> ScoredRows:
        """Scores of all rows. Those of rows with a reading that is no number mean nothing."""
        with np.errstate(invalid="ignore"):  # infinity by a weight of 0
            if len(found) <= _TOGETHER or not self._layers:
                shares = self.shares(found)
                return ScoredRows(found, shares, self._sums(shares, found))
            scores = np.empty((len(found), self.checks))
            for first in range(0, len(found), _TOGETHER):
                part = found.between(first, min(first + _TOGETHER, len(found)))
                scores[first : first + len(part)] = self._sums_alone(part)
            return ScoredRows(found, None, scores)

    def shares(self, found: Active, *, named: bool = False) -> Shares:
        """All shares of some rows: those of the first check that reads each column, of the second, and so on.

        `named`: with those of features that explain a probe, which are no part of a score.
        """
        readings, parts = np.arange(len(found.columns)), [Shares(_NONE, _NONE, _NOTHING)]
        layers = self._named if named and self._named is not None else self._layers
        for mine, places, values in self._parts(found, layers):
            readings = readings if mine is None else readings.take(mine)
            parts.append(Shares(places, readings, values))
        return Shares(
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.readings for part in parts]),
            np.concatenate([part.values for part in parts]),
        )

    def _parts(
        self, found: Active, layers: Sequence[_Layer]
    ) -> Iterator[tuple[Indices | None, Indices, NDArray[np.float64]]]:
        """The shares again, as places and values, and before these which of the part before are in this one."""
        columns, values, mine = found.columns, found.values, None
        base = np.repeat(np.arange(len(found)) * self.checks, found.counts)
        for number, (check, weight, read) in enumerate(layers):
            if number:  # few columns are read by several checks
                mine = read.take(columns).nonzero()[0]
                base, columns, values = base.take(mine), columns.take(mine), values.take(mine)
            yield mine, base + check.take(columns), values * weight.take(columns)

    def _sums(self, shares: Shares, found: Active) -> NDArray[np.float64]:
        """`[rows, checks]`: first of each reading's first share, then of all others, here as in `_sums_alone`."""
        out, first = np.zeros(len(found) * self.checks), len(found.columns)
        out += np.bincount(shares.places[:first], shares.values[:first], len(out))
        out += np.bincount(shares.places[first:], shares.values[first:], len(out))
        return out.reshape(len(found), self.checks)

    def _sums_alone(self, found: Active) -> NDArray[np.float64]:
        """The same without the shares, in half the time where there are many."""
        first, *others = ((places, values) for _, places, values in self._parts(found, self._layers))
        out = np.bincount(*first, len(found) * self.checks)
        if others:
            places, values = (np.concatenate(arrays) for arrays in zip(*others, strict=True))
            out += np.bincount(places, values, len(out))
        return np.asarray(out.reshape(len(found), self.checks), np.float64)

    def strongest(
        self, scored: ScoredRows, tokens: Indices, checks: Indices, most: int
    ) -> tuple[Indices, Indices, Indices, NDArray[np.float32]]:
        """The features that give most to the scores of pairs of a token and a check, `most` of each at most.

        To a probe's score a feature gives what its direction in the dictionary has in common with the probe. Gives
        pair, rank from 0 on, column and reading of each; only what gives more than 0. Of equal ones the lower column
        comes first.
        """
        read, shares = scored.active, scored.shares
        if shares is None or self._named is not None or 4 * len(tokens) < len(read):
            read, tokens = read.some(tokens), np.arange(len(tokens))
            shares = self.shares(read, named=True)
        pairs = np.full(len(read) * self.checks, -1)
        pairs[tokens * self.checks + checks] = np.arange(len(tokens))
        pair = pairs.take(shares.places)
        # Probes and signals stand behind the features.
        own = ((pair >= 0) & (shares.values > 0)).nonzero()[0]
        own = own[read.columns.take(shares.readings[own]) < self._features]
        own = own[np.argsort(shares.readings[own], kind="stable")]
        # Complex numbers are sorted by their real parts, then by the imaginary ones.
        own = own[np.argsort(pair[own] - 1j * shares.values[own], kind="stable")]
        pair, reading = pair[own], shares.readings[own]
        rank = np.arange(len(pair)) - np.searchsorted(pair, pair)
        kept = (rank < most).nonzero()[0]
        return pair[kept], rank[kept], read.columns[reading[kept]], read.values[reading[kept]]


_Layer = tuple[Indices, NDArray[np.float64], NDArray[np.bool_]]


def _layers(watch: WatchPlan, checks: Sequence[Check], *, explained: bool) -> list[_Layer]:
    """Which checks read every column and with what weights, layer by layer; `explained` adds what explains probes."""
    table: list[dict[int, float]] = [{} for _ in range(len(watch))]
    for i, check in enumerate(checks):
        for feature in (*check.features, *(check.explains if explained else ())):
            row = table[watch.column(feature.index)]
            row[i] = row.get(i, 0.0) + feature.weight
        for other in (check.probe, check.signal):
            if other is not None:
                table[watch.column(other)][i] = 1.0
    most = max((len(row) for row in table), default=0)
    return [_layer(table, n) for n in range(most)]


def _layer(table: Sequence[Mapping[int, float]], n: int) -> _Layer:
    """`[columns]` each: the n-th check that reads it, with its weight, and whether there is one."""
    pairs = [sorted(row.items())[n] if len(row) > n else None for row in table]
    checks = np.asarray([0 if pair is None else pair[0] for pair in pairs], np.intp)
    weights = np.asarray([0.0 if pair is None else pair[1] for pair in pairs], np.float64)
    return checks, weights, np.asarray([pair is not None for pair in pairs], bool)
