"""The tap: reads and clamps the residual stream at one layer, row by row.

It works on tensors that are allocated once, without branches on their contents where `static` is set, so that a
captured CUDA graph replays the same reads and edits (Python hooks do not run on replay).
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from monitor.model.load.hook_points import Site, hidden_of, replace_hidden
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.error_term import Dropper
from monitor.records import UNREAD


class LayerReached(Exception):
    """Ends a scoring pass after the tapped layer."""


class TapBuffers:
    """What one thread's forward passes write (readings) and obey (clamps). Rows are tokens of the current pass."""

    def __init__(
        self, bank: FeatureBank, rows: int, *, stop: bool = False, static: bool = False, later: int = 0
    ) -> None:
        place: dict[str, Any] = {"device": bank.device, "dtype": bank.dtype}
        self.readings = torch.zeros(rows, bank.width, **place)
        """`[rows, slots]` in units of each feature's maximum, from the residual before any clamp."""
        self.others = torch.zeros(rows, bank.others.width, **place)
        """`[rows, probes and signals]` in their own units, from the residual before any clamp; valid where read."""
        self.after = torch.zeros(rows, bank.width, **place)
        """`[rows, slots]` re-encoded after the clamps; valid in passes that clamp."""
        self.target = torch.zeros(rows, bank.width, **place)
        """`[rows, slots]` target activations, not in units of the maximum."""
        self.active = torch.zeros(rows, bank.width, dtype=torch.bool, device=bank.device)
        """`[rows, slots]` clamp here where the feature is active."""
        self.everywhere = torch.zeros(rows, bank.width, dtype=torch.bool, device=bank.device)
        """`[rows, slots]` clamp here in any case."""
        self.chosen = torch.zeros(rows, bank.width, dtype=torch.bool, device=bank.device)
        """`[rows, slots]` the feature in the slot was set; valid in passes that clamp."""
        self.drop = torch.zeros(rows, dtype=torch.bool, device=bank.device)
        """`[rows]` leave the error term out where the residual is changed."""
        self.dropping = False
        """True where any row of this pass drops its error term."""
        self.written = 0
        """How many rows, from the first, may hold clamps of the last pass; a captured graph obeys what stands there."""
        self.later = torch.zeros(rows, later, **place)
        """`[rows, probes]` scores of the probes behind the tapped layer; valid in passes that clamp."""
        self.reads_others = bank.others.read_any
        """True where a policy set reads probes or signals."""
        self.read = self.computed = bank.read
        """How many slots, from the first, hold what policies name; and how many this pass computes."""
        self.clamping = False
        """True where any row of this pass is clamped."""
        self.stop = stop
        """End the forward pass after the layer (scoring without generation)."""
        self.static = static
        """Never branch on `clamping`: for CUDA graphs."""

    def poison(self, rows: int) -> None:
        """Fill what the next pass must write with what no reading can be, so that a tap that did not run shows."""
        self.readings[:rows].fill_(UNREAD)
        self.others[:rows].fill_(UNREAD)
        self.later[:rows].fill_(torch.nan)

    def settle(self, bank: FeatureBank) -> None:
        """Decide how many slots the next pass computes; policy sets and requests may come and go while it runs."""
        self.read = bank.read
        self.reads_others = bank.others.read_any
        self.computed = bank.in_use if self.clamping else bank.read

    def slots(self, bank: FeatureBank) -> int:
        """How many slots this pass computes, as settled when it was laid out."""
        return bank.width if self.static else self.computed


class Tap:
    """A forward hook at one place: readings = encode(x), x' = x + Σ_i (c_i − a_i) · W_dec[i].

    All a_i are read from the original x; the sum is taken in the bank's dtype and cast once. Rows on which nothing
    is clamped come back bit-identical. Threads that did not call `use` pass through untouched. Rows of another device
    than the bank's (a layer's input in a model on several) are read on the bank's and given back on their own.
    """

    def __init__(self, bank: FeatureBank, layer: nn.Module | Site, dropper: Dropper | None = None) -> None:
        self.bank = bank
        self.dropper = dropper
        self._layer = layer
        self._handle: Any = None
        self._current = threading.local()

    def attach(self) -> None:
        """Install the hook; does nothing where it is installed."""
        if self._handle is None:
            self._handle = self._layer.register_forward_hook(self._hook)

    def detach(self) -> None:
        """Remove the hook."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def use(self, buffers: TapBuffers | None) -> None:
        """Forward passes of the calling thread read into and obey these buffers; None: pass through."""
        self._current.buffers = buffers

    def current(self) -> TapBuffers | None:
        """What forward passes of the calling thread read into; None where they pass through."""
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
        """Read rows `[rows, d_model]` into the buffers; the clamped rows, or None where this pass clamps nothing."""
        rows, slots = x.shape[0], buffers.slots(self.bank)
        bank, home = self.bank, x.device
        x = x.to(bank.device)
        activations, scale = bank.activations(x, slots)
        torch.mul(activations, bank.unit[:slots], out=buffers.readings[:rows, :slots])
        if buffers.reads_others or buffers.static:
            buffers.others[:rows] = bank.others.read(x)
        if not (buffers.clamping or buffers.static):
            return None
        chosen = buffers.everywhere[:rows, :slots] | (buffers.active[:rows, :slots] & (activations > 0))
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
        """The clamped rows, those without error term among them where it is to be dropped."""
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
