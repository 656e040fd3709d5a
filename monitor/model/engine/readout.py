"""What a pass wrote into the tap's buffers, copied to the host once, as arrays over the rows of the pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.model.engine.requests import Lease
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.suppression_check import CheckRows, Watched, check_rows
from monitor.model.tap.tap import TapBuffers
from monitor.model.tap.transfers import HostCopies
from monitor.records import UNREAD, Phase, Readings, ScoredTokens


class Readout:
    """Copies readings to the host after each pass."""

    def __init__(self, bank: FeatureBank, buffers: TapBuffers) -> None:
        self._bank, self._buffers = bank, buffers

    def copy(self, rows: int) -> PassCopy:
        """Begin to copy what the pass in the buffers writes for its first rows. Another may be laid out at once."""
        buffers, slots = self._buffers, self._buffers.slots(self._bank)
        copies = HostCopies(self._bank.device)
        made = PassCopy(
            self._bank,
            copies,
            buffers.read,
            copies.add(buffers.readings[:rows, :slots], torch.float32),
            copies.add(buffers.sinks[:rows]),
            copies.add(buffers.others[:rows], torch.float32) if buffers.reads_others else None,
        )
        if buffers.clamping:
            made.after = copies.add(buffers.after[:rows, :slots], torch.float32)
            made.chosen = copies.add(buffers.chosen[:rows, :slots])
            made.later = copies.add(buffers.later[:rows], torch.float32) if buffers.later.shape[1] else None
        copies.sent()
        return made

    def take(self, rows: int) -> Taken:
        """Readings of the first rows of the pass that just ended."""
        return self.copy(rows).taken()


@dataclass(eq=False)
class PassCopy:
    """What a pass wrote, on its way to the host. The tensors are those of `Taken`."""

    bank: FeatureBank
    copies: HostCopies
    read: int
    readings: Tensor
    sinks: Tensor
    others: Tensor | None
    after: Tensor | None = None
    chosen: Tensor | None = None
    later: Tensor | None = None

    def taken(self) -> Taken:
        """What has arrived. Waits for it."""
        self.copies.wait()
        others, sinks = self.others, self.sinks.numpy()
        taken = Taken(
            self.bank,
            self.readings.numpy(),
            self.read,
            None if others is None else others.numpy(),
            sinks=sinks if sinks.any() else None,
        )
        if self.after is not None and self.chosen is not None:
            taken.after, taken.chosen = self.after.numpy(), self.chosen.numpy()
            taken.edited = np.asarray(taken.chosen.any(axis=1))
            taken.later = None if self.later is None else self.later.numpy()
        return taken


@dataclass(eq=False)
class Taken:
    """One pass on the host: `[rows, slots]` before and after clamps, and which rows were edited."""

    bank: FeatureBank
    readings: Readings
    read: int
    """How many slots, from the first, policy sets hold."""
    others: Readings | None = None
    """`[rows, probes and signals]` at the tapped layer; None where no policy set reads any."""
    sinks: NDArray[np.bool_] | None = None
    """`[rows]` attention sinks, which rules pass over and clamps leave alone; None where there are none."""
    after: Readings | None = None
    """As `readings`; None, like all below, where the pass clamped nothing."""
    chosen: NDArray[np.bool_] | None = None
    """`[rows, slots]` which feature was set at which row."""
    edited: NDArray[np.bool_] | None = None
    """`[rows]`"""
    later: Readings | None = None
    """`[rows, probes]` scores of probes behind the tapped layer."""
    _watched: dict[int, Readings] = field(default_factory=dict)

    def watched(self, lease: Lease | None) -> Readings:
        """Readings `[rows, watched]` of a policy set."""
        found = self._watched.get(id(lease))
        if found is None:
            found = self._watched[id(lease)] = self._shown(lease)
        return found

    def finite(self, rows: slice) -> bool:
        """True where all that was read of some rows are numbers, or nothing was read."""
        parts = [self.readings[rows]] if self.others is None else [self.readings[rows], self.others[rows]]
        return all(part.max(initial=UNREAD) < np.inf for part in parts)

    def sinks_in(self, rows: slice) -> int:
        """Number of attention sinks among some rows."""
        return 0 if self.sinks is None else int(np.count_nonzero(self.sinks[rows]))

    def check(self, rows: slice, place: Watched) -> CheckRows:
        """What rows of a pass that clamps say about the clamps of a policy."""
        assert self.after is not None
        assert self.chosen is not None
        later = None if self.later is None or place.column is None else self.later[rows, place.column]
        if later is not None and self.sinks is not None:
            later = later[~self.sinks[rows]]
        return check_rows(place.slots, self.readings[rows], self.after[rows], self.chosen[rows], later)

    def tokens(
        self,
        phase: Phase,
        start: int,
        ids: tuple[int, ...],
        first: int,
        lease: Lease | None,
        clamped: tuple[int, ...] = (),
    ) -> ScoredTokens:
        """Tokens from a position on, whose rows begin at `first`, in slots that a set holds or that are clamped."""
        rows, slots = slice(first, first + len(ids)), self._slots(lease)
        slots = np.concatenate([slots, np.setdiff1d(clamped, slots)]).astype(np.intp)
        after = None if self.after is None else self.after[rows][:, slots]
        edited = None if self.edited is None else self.edited[rows]
        features = self.bank.features_in(slots)
        return ScoredTokens(phase, start, ids, features, self.readings[rows][:, slots], after, edited)

    def _slots(self, lease: Lease | None) -> NDArray[np.intp]:
        columns = self.bank.first if lease is None else lease.columns
        return np.arange(self.bank.width)[columns]

    def _shown(self, lease: Lease | None) -> Readings:
        found = self.readings[:, : self.read][:, self.bank.first if lease is None else lease.columns]
        which = self.bank.first_others if lease is None else lease.others
        if which is None:
            return found
        if self.others is None:  # the set came while this pass ran
            missing = np.full((len(found), len(which)), UNREAD, found.dtype)
            return np.concatenate([found, missing], axis=1)
        return np.concatenate([found, self.others[:, which]], axis=1)
