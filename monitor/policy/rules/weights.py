"""Weights of all checks over the watched columns, sparse: a token's scores cost what is active times who reads it.

Knows columns and numbers of checks. A row's scores do not depend on which rows stand beside it, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check
from monitor.records import Readings, WatchPlan


@dataclass(frozen=True)
class Active:
    """Readings that are not zero, row by row, columns ascending."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    values: NDArray[np.float32]

    def of(self, row: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Columns and values of one row."""
        start, stop = np.searchsorted(self.rows, (row, row + 1))
        return self.columns[start:stop], self.values[start:stop]


def active(readings: Readings) -> Active:
    """What is not zero in readings `[rows, watched]`; NaN is not."""
    width = readings.shape[1]
    found = np.flatnonzero(np.ascontiguousarray(readings).ravel() != 0)
    rows, columns = np.divmod(found, max(width, 1))
    return Active(rows, columns, readings[rows, columns])


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
        self._starts = np.cumsum([0, *(len(row) for row in table)])
        self._check = np.asarray([i for row in table for i in row], np.intp)
        self._weight = np.asarray([w for row in table for w in row.values()], np.float64)
        self._table = table

    def scores(self, found: Active, rows: int) -> NDArray[np.float64]:
        """Σ weight · reading, `[rows, checks]`."""
        first = self._starts[found.columns]
        counts = self._starts[found.columns + 1] - first
        total = int(counts.sum())
        ends = np.cumsum(counts)
        which = np.arange(total) + np.repeat(first - (ends - counts), counts)
        place = np.repeat(found.rows * self.checks, counts) + self._check[which]
        parts = np.repeat(found.values.astype(np.float64), counts) * self._weight[which]
        flat = np.bincount(place, weights=parts, minlength=rows * self.checks)
        return flat.astype(np.float64, copy=False).reshape(rows, self.checks)

    def share(self, column: int, check: int) -> float:
        """The weight of a column in a check; 0 where the check does not read it."""
        return self._table[column].get(check, 0.0)
