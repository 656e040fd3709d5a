"""What one pass wrote for consecutive tokens of one request.

Knows positions and readings. Does not know buffers, batches or rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.model.tap.suppression_check import CheckRows
from monitor.records import FeatureReading, Readings


@dataclass(frozen=True, slots=True)
class Rows:
    """What one pass wrote for consecutive tokens of one request."""

    position: int
    readings: Readings
    """`[tokens, watched]`"""
    clean: bool = False
    """True where the whole pass is known to be scored; False where `why_unscored` must look."""
    fault: str = ""
    """Why these rows cannot be this request's, as one word; empty where they are."""
    edited: NDArray[np.bool_] | None = None
    """`[tokens]` which of them were clamped; None where the pass clamped nothing."""
    active: Sequence[tuple[FeatureReading, ...]] | None = None
    """Per token, where the caller wants tokens."""
    checks: Mapping[str, CheckRows] | None = None
    """By policy, what became of its clamps; None where no policy clamps."""

    def part(self, first: int, last: int) -> Rows:
        """The tokens at positions from `first` up to `last`, which is left out."""
        start, stop = max(0, first - self.position), max(0, last - self.position)
        if start == 0 and stop >= len(self.readings):
            return self
        active = None if self.active is None else self.active[start:stop]
        edited = None if self.edited is None else self.edited[start:stop]
        readings = self.readings[start:stop]
        checks = self.checks and {name: check.part(start, stop) for name, check in self.checks.items()}
        return Rows(self.position + start, readings, self.clean, self.fault, edited, active, checks)


def why_unscored(readings: Readings) -> str:
    """Why a block of readings `[tokens, watched]` counts as unscored, as one word; empty where it was scored."""
    if all_scored(readings):
        return ""
    return "tap_missed" if np.isneginf(readings).any() else "non_finite"


def all_scored(readings: Readings) -> bool:
    """True where every reading is a finite number: neither `UNREAD` nor NaN, which fails every comparison."""
    return not readings.size or bool(readings.min() > -np.inf and readings.max() < np.inf)
