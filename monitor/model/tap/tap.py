"""The tap: a forward hook that reads features at one hook point and clamps them.

It works on tensors that are allocated once. Where `static` is set it does not branch on their contents, so that a
captured CUDA graph replays the same reads and edits; Python hooks themselves do not run on replay.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from monitor.dictionary.residual_signals import outlying
from monitor.model.load.hook_points import Site, hidden_of, replace_hidden
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.error_term import ErrorTermDropper
from monitor.model.tap.transfers import to_device
from monitor.records import UNREAD


class LayerReached(Exception):
    """Raised by the tap to end a forward pass after the tapped layer."""


class TapBuffers:
    """Buffers of one thread: the tap writes readings into them and takes clamps from them.

    A row is a token of the current pass. A slot is a feature of the bank.
    """

    def __init__(
        self, bank: FeatureBank, rows: int, *, stop: bool = False, static: bool = False, later: int = 0
    ) -> None:
        place: dict[str, Any] = {"device": bank.device, "dtype": bank.dtype}
        edited = 0 if stop else rows
        """Rows that may be clamped: a pass that stops at the tap clamps nothing."""
        self.readings = torch.zeros(rows, bank.width, **place)
        """`[rows, slots]` readings before any clamp, in units of each feature's recorded maximum."""
        self.others = torch.zeros(rows, bank.others.width, **place)
        """`[rows, probes and signals]` values before any clamp, in their own units; valid where `reads_others`."""
        self.after = torch.zeros(edited, bank.width, **place)
        """`[rows, slots]` readings of the clamped residuals; valid in passes that clamp."""
        self.target = torch.zeros(edited, bank.width, **place)
        """`[rows, slots]` target activations, not in units of the maximum."""
        self.active = torch.zeros(edited, bank.width, dtype=torch.bool, device=bank.device)
        """`[rows, slots]` clamp the feature here if it is active."""
        self.everywhere = torch.zeros(edited, bank.width, dtype=torch.bool, device=bank.device)
        """`[rows, slots]` clamp the feature here whether it is active or not."""
        self.chosen = torch.zeros(edited, bank.width, dtype=torch.bool, device=bank.device)
        """`[rows, slots]` whether the feature was clamped here; valid in passes that clamp."""
        self.first = torch.zeros(rows, dtype=torch.bool, device=bank.device)
        """`[rows]` True where the token is the first of its sequence."""
        self.sinks = torch.zeros(rows, dtype=torch.bool, device=bank.device)
        """`[rows]` True where the token is an attention sink, which no rule reads and no clamp edits; see `sinks`."""
        self.drop = torch.zeros(edited, dtype=torch.bool, device=bank.device)
        """`[rows]` drop the error term if any feature is clamped here."""
        self.dropping = False
        """True where any row of this pass drops its error term."""
        self.written = 0
        """Number of rows, from 0, that may contain clamps of the last pass; a captured graph would apply them."""
        self.begun: list[int] = []
        """Rows at which `first` is True."""
        self.later = torch.zeros(rows, later, **place)
        """`[rows, probes]` scores of the probes at later layers; valid in passes that clamp."""
        self.reads_others = bank.others.read_any
        """True where a policy set reads probes or signals."""
        self.read = bank.read
        """Features that policies read are in slots below this one."""
        self.computed = bank.read
        """This pass computes the slots below this one."""
        self.clamping = False
        """True where any row of this pass is clamped."""
        self.stop = stop
        """End the forward pass after the tapped layer, as scoring without generation does."""
        self.static = static
        """Compute everything in every pass, whether it clamps or not, so that a CUDA graph can be captured."""

    def poison(self, rows: int) -> None:
        """Overwrite what the next pass must write, so that a tap that does not run is noticed.

        The first `rows` rows of readings become UNREAD, those of late probes NaN.
        """
        self.readings[:rows].fill_(UNREAD)
        self.others[:rows].fill_(UNREAD)
        self.later[:rows].fill_(torch.nan)
        self.sinks[:rows].fill_(False)

    def begin(self, rows: Sequence[int]) -> None:
        """Say which rows of the next pass are the first tokens of their sequences."""
        for which, value in ((self.begun, False), (rows, True)):
            if which:
                self.first.index_fill_(0, to_device(which, torch.int64, self.first.device), value)
        self.begun = list(rows)

    def settle(self, bank: FeatureBank) -> None:
        """Fix how many slots the next pass computes. Policy sets and requests may change the bank while it runs."""
        self.read = bank.read
        self.reads_others = bank.others.read_any
        self.computed = bank.in_use if self.clamping else bank.read

    def finite(self, bank: FeatureBank, rows: int, later: Sequence[int] = ()) -> bool:
        """True where the pass that just ended computed numbers alone for its first rows.

        `later`: the columns of late probes that passes write. What no tap wrote (UNREAD) says nothing of the numbers.
        """
        parts = [self.readings[:rows, : self.slots(bank)]]
        if self.reads_others:
            parts.append(self.others[:rows])
        if self.clamping and later:
            parts.append(self.later[:rows, list(later)])
        # The largest of values among which is NaN is NaN.
        return all(part.numel() == 0 or bool(part.amax() < torch.inf) for part in parts)

    def slots(self, bank: FeatureBank) -> int:
        """Number of slots that this pass computes, as fixed by `settle`."""
        return bank.width if self.static else self.computed


class Tap:
    """A forward hook at one hook point: readings = encode(x), x' = x + Σ_i (c_i − a_i) · W_dec[i].

    All activations a_i are read from the original x; the sum is taken in the bank's dtype and cast once. Rows without a
    clamp stay bit-identical, and so do attention sinks: rows that `TapBuffers.begin` named and rows whose norm is above
    `norm_limit`. Forward passes of threads that did not call `use` are not touched. Where x is on another device than
    the bank, it is moved there to be read, and the result is moved back.
    """

    def __init__(
        self,
        bank: FeatureBank,
        layer: nn.Module | Site,
        dropper: ErrorTermDropper | None = None,
        *,
        norm_limit: float = math.inf,
    ) -> None:
        self.bank = bank
        self.dropper = dropper
        self.norm_limit = norm_limit
        self.site = layer
        """Where it is installed."""
        self._handle: Any = None
        self._current = threading.local()

    def attach(self) -> None:
        """Install the hook; does nothing where it is installed."""
        if self._handle is None:
            self._handle = self.site.register_forward_hook(self._hook)

    def detach(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def use(self, buffers: TapBuffers | None) -> None:
        """Use these buffers in forward passes of the calling thread; None leaves its passes untouched."""
        self._current.buffers = buffers

    def current(self) -> TapBuffers | None:
        """The buffers of the calling thread; None where its passes are not touched."""
        buffers: TapBuffers | None = getattr(self._current, "buffers", None)
        return buffers

    def _hook(self, _module: nn.Module, _args: object, output: Any) -> Any:
        buffers = self.current()
        if buffers is None:
            return None
        hidden = hidden_of(output)
        edited = self.apply(hidden.reshape(-1, hidden.shape[-1]), buffers)
        if buffers.stop:
            raise LayerReached
        return None if edited is None else replace_hidden(output, edited.view_as(hidden))

    def apply(self, x: Tensor, buffers: TapBuffers) -> Tensor | None:
        """Read residuals `[rows, d_model]` into the buffers and clamp them.

        Returns the clamped residuals of the same shape, or None where this pass clamps nothing.
        """
        rows, slots = x.shape[0], buffers.slots(self.bank)
        bank, home = self.bank, x.device
        x = x.to(bank.device)
        buffers.sinks[:rows] = buffers.first[:rows] | outlying(x, self.norm_limit)
        activations, scale = bank.activations(x, slots)
        torch.mul(activations, bank.unit[:slots], out=buffers.readings[:rows, :slots])
        if buffers.reads_others or buffers.static:
            buffers.others[:rows] = bank.others.read(x)
        if not (buffers.clamping or buffers.static):
            return None
        chosen = buffers.everywhere[:rows, :slots] | (buffers.active[:rows, :slots] & (activations > 0))
        chosen &= ~buffers.sinks[:rows, None]
        buffers.chosen[:rows, :slots] = chosen
        difference = torch.where(chosen, buffers.target[:rows, :slots] - activations, 0)
        delta = difference @ bank.decoder[:slots]
        if scale is not None:
            delta = delta * scale
        edited = chosen.any(-1, keepdim=True)
        clamped = torch.where(edited, (x.to(bank.dtype) + delta).to(x.dtype), x)
        if self.dropper is not None and (buffers.dropping or buffers.static):
            clamped = self._dropped(x, clamped, chosen, buffers)
        again, _ = bank.activations(clamped, slots)
        torch.mul(again, bank.unit[:slots], out=buffers.after[:rows, :slots])
        return clamped.to(home)

    def _dropped(self, x: Tensor, clamped: Tensor, chosen: Tensor, buffers: TapBuffers) -> Tensor:
        """The clamped rows, with the error term dropped on those where the clamps ask for it."""
        assert self.dropper is not None
        rows, slots = chosen.shape
        drop = buffers.drop[:rows] & chosen.any(-1)
        target, index = buffers.target[:rows, :slots], self.bank.index[:slots]
        if buffers.static:
            found = self.dropper.rows(x, chosen, target, index).to(x.dtype)
            return torch.where(drop.unsqueeze(-1), found, clamped)
        which = drop.nonzero().squeeze(-1)
        if not len(which):
            return clamped
        found = self.dropper.rows(x[which], chosen[which], target[which], index).to(x.dtype)
        return clamped.index_copy(0, which, found)
