"""What a pass wrote into the tap's buffers, on the host and by request.

Knows buffers and spans. Does not know rules or texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.model.bank import FeatureBank
from monitor.model.batching import Span
from monitor.model.rows import Rows, all_scored
from monitor.model.tap import TapBuffers
from monitor.model.track import Track
from monitor.records import FeatureReading, Readings


class Readout:
    """Copies readings to the host after each pass."""

    def __init__(self, bank: FeatureBank, buffers: TapBuffers) -> None:
        self._bank, self._buffers = bank, buffers

    def take(self, rows: int) -> Taken:
        """Readings of the first rows of the pass that just ended."""
        buffers, slots = self._buffers, self._buffers.slots(self._bank)
        readings = _host(buffers.readings[:rows, :slots])
        watched = readings[:, : len(self._bank.watched)]
        clean = all_scored(watched)
        if not buffers.clamping:
            return Taken(self._bank, readings, watched, clean)
        after, edited = _host(buffers.after[:rows, :slots]), buffers.edited[:rows].cpu().numpy()
        return Taken(self._bank, readings, watched, clean, after, edited)


@dataclass(frozen=True)
class Taken:
    """One pass on the host: `[rows, slots]` before and after clamps, and which rows were edited."""

    bank: FeatureBank
    readings: Readings
    watched: Readings
    """Readings `[rows, watched]`."""
    clean: bool
    """True where every row was scored."""
    after: Readings | None = None
    edited: NDArray[np.bool_] | None = None

    def of(self, span: Span, track: Track) -> Rows:
        """The rows of one request."""
        rows = slice(span.first, span.first + span.count)
        edited = None if self.edited is None else self.edited[rows]
        active = None
        if track.request.include_tokens:
            slots = range(len(self.bank.watched))
            extra = () if track.row is None else track.row.slots
            active = [
                self.active(row, [*slots, *(s for s in extra if s >= len(slots))])
                for row in range(*rows.indices(len(self.readings)))
            ]
        return Rows(span.position, self.watched[rows], self.clean, edited=edited, active=active)

    def active(self, row: int, slots: list[int]) -> tuple[FeatureReading, ...]:
        """Features of these slots that are active at a row, before or after clamps."""
        before = self.readings[row]
        changed = self.after is not None and self.edited is not None and bool(self.edited[row])
        found: list[FeatureReading] = []
        for slot in slots:
            value = float(before[slot])
            after = float(self.after[row, slot]) if changed and self.after is not None else None
            if value != 0 or after:
                found.append(FeatureReading(self.bank.feature(slot), value, after))
        return tuple(found)


def _host(values: Tensor) -> Readings:
    return values.to(device="cpu", dtype=torch.float32, copy=True).numpy()
