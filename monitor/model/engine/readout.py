"""What a pass wrote into the tap's buffers, on the host and by request.

Knows buffers and spans. Does not know rules or texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.model.engine.requests import Lease
from monitor.model.engine.rows import Rows, all_scored
from monitor.model.engine.sequence import Track
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.span import Span
from monitor.model.tap.suppression_check import CheckRows, check_rows
from monitor.model.tap.tap import UNREAD, TapBuffers
from monitor.records import FeatureReading, Readings


class Readout:
    """Copies readings to the host after each pass."""

    def __init__(self, bank: FeatureBank, buffers: TapBuffers) -> None:
        self._bank, self._buffers = bank, buffers

    def take(self, rows: int) -> Taken:
        """Readings of the first rows of the pass that just ended."""
        buffers, slots = self._buffers, self._buffers.slots(self._bank)
        readings = _host(buffers.readings[:rows, :slots])
        watched = readings[:, : buffers.read]
        others = _host(buffers.others[:rows]) if buffers.reads_others else None
        clean = all_scored(watched) and (others is None or all_scored(others))
        if not buffers.clamping:
            return Taken(self._bank, readings, watched, clean, others=others)
        after, chosen = (
            _host(buffers.after[:rows, :slots]),
            buffers.chosen[:rows, :slots].to("cpu", copy=True).numpy(),
        )
        later = _host(buffers.later[:rows]) if buffers.later.shape[1] else None
        return Taken(
            self._bank, readings, watched, clean, after, np.asarray(chosen.any(axis=1)), chosen, later, others
        )


@dataclass(frozen=True)
class Taken:
    """One pass on the host: `[rows, slots]` before and after clamps, and which rows were edited."""

    bank: FeatureBank
    readings: Readings
    watched: Readings
    """Readings `[rows, read]` of the slots that policy sets hold."""
    clean: bool
    """True where every row was scored."""
    after: Readings | None = None
    edited: NDArray[np.bool_] | None = None
    chosen: NDArray[np.bool_] | None = None
    """`[rows, slots]` which feature was set at which row."""
    later: Readings | None = None
    """`[rows, probes]` scores of probes behind the tapped layer."""
    others: Readings | None = None
    """`[rows, probes and signals]` at the tapped layer; None where no policy set reads any."""

    def of(self, span: Span, track: Track) -> Rows:
        """The rows of one request."""
        rows = slice(span.first, span.first + span.count)
        edited = None if self.edited is None else self.edited[rows]
        active = None
        if track.request.include_tokens:
            slots = self.slots(track.request.lease)
            extra = () if track.row is None else track.row.slots
            shown = [*slots, *(slot for slot in extra if slot not in slots)]
            active = [self.active(row, shown) for row in range(*rows.indices(len(self.readings)))]
        return Rows(
            span.position,
            self.shown(rows, track.request.lease),
            self.clean,
            edited=edited,
            active=active,
            checks=self.checks(rows, track),
        )

    def checks(self, rows: slice, track: Track) -> dict[str, CheckRows] | None:
        """What these rows say about the clamps of the policies that suppressed them."""
        if self.after is None or self.chosen is None or not track.places:
            return None
        before, after, chosen = self.readings[rows], self.after[rows], self.chosen[rows]
        found: dict[str, CheckRows] = {}
        for name, place in track.places.items():
            later = None if self.later is None or place.column is None else self.later[rows, place.column]
            found[name] = check_rows(place.slots, before, after, chosen, later)
        return found

    def shown(self, rows: slice, lease: Lease | None) -> Readings:
        """Readings `[rows, watched]` of a policy set."""
        found = self.watched[rows][:, self.bank.first if lease is None else lease.columns]
        which = self.bank.first_others if lease is None else lease.others
        if which is None:
            return found
        if self.others is None:  # the set came while this pass ran
            return np.concatenate([found, np.full((len(found), len(which)), UNREAD, found.dtype)], axis=1)
        return np.concatenate([found, self.others[rows][:, which]], axis=1)

    def slots(self, lease: Lease | None) -> list[int]:
        """The slots that a policy set reads."""
        columns = self.bank.first if lease is None else lease.columns
        return (
            list(range(*columns.indices(self.bank.width))) if isinstance(columns, slice) else columns.tolist()
        )

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
