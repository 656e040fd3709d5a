"""What one pass wrote for consecutive tokens of one request.

Knows positions and readings. Does not know buffers, batches or rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.records import FeatureReading, Readings


@dataclass(frozen=True, slots=True)
class Rows:
    """What one pass wrote for consecutive tokens of one request."""

    position: int
    readings: Readings
    """`[tokens, watched]`"""
    edited: int = 0
    """How many of the tokens were clamped."""
    active: Sequence[tuple[FeatureReading, ...]] | None = None
    """Per token, where the caller wants tokens."""

    def since(self, position: int) -> Rows:
        """The part from a position on."""
        skip = max(0, position - self.position)
        active = None if self.active is None else self.active[skip:]
        return Rows(self.position + skip, self.readings[skip:], self.edited, active)

    def until(self, position: int) -> Rows:
        """The part before a position."""
        keep = max(0, position - self.position)
        active = None if self.active is None else self.active[:keep]
        return Rows(self.position, self.readings[:keep], self.edited, active)


def why_unscored(readings: Readings) -> str:
    """Why a block of readings `[tokens, watched]` counts as unscored, as one word; empty where it was scored."""
    if np.isfinite(readings).all():
        return "tap_missed" if (readings < 0).any() else ""
    return "non_finite"
