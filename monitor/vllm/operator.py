"""The tap as a torch operator, so that compiled models and captured CUDA graphs hold it.

To a compiler the operator is opaque: it is traced as one call that changes its arguments. What it does is the `Tap` of
the model that it stands in, on tensors that are allocated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from monitor.model.tap.late_probes import LaterTaps
from monitor.model.tap.tap import Tap
from monitor.vllm.shared_edits import SharedEdits

VERSION = 1
"""Of what stands in the graph. It goes into the key of vLLM's compile cache, which cannot see plug-ins."""


class TappedModel(Protocol):
    """What the operators of one model do."""

    layer: int
    """Layer after which the residual stream is read and clamped."""
    later_layers: tuple[int, ...]
    """Layers behind it after which probes are read."""

    @property
    def shared(self) -> SharedEdits | None:
        """With tensor parallelism, how this rank edits as the others do."""

    def run(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor] | None:
        """What becomes of the stream `[rows, d_model]` behind a layer: it clamped, and which rows `[rows, 1]` were
        edited; None where none can have been."""


@dataclass(eq=False)
class Seat:
    """What the operators of one model do where the tap is in this process."""

    tap: Tap
    layer: int
    later: LaterTaps | None = None
    later_layers: tuple[int, ...] = ()
    shared: SharedEdits | None = None

    def run(self, x: Tensor, layer: int) -> tuple[Tensor, Tensor] | None:
        """As `TappedModel.run`."""
        buffers = self.tap.current()
        if buffers is None:  # a pass of vLLM's own, such as one that warms up
            return None
        if layer != self.layer:
            if self.later is not None:
                self.later.read(layer, x, buffers)
            return None
        clamped = self.tap.apply(x, buffers)
        if clamped is None:
            return None
        edited = buffers.chosen[: len(x), : buffers.slots(self.tap.bank)].any(-1, keepdim=True)
        if self.shared is None:
            return clamped, edited
        return self.shared.share(x, (clamped, edited)) if self.shared.sharing else None


_seats: list[TappedModel] = []
"""By number. A number is part of the compiled graph, so it is the order in which models were loaded."""


def take_seat(seat: TappedModel) -> int:
    """Number of a seat, which the operators of its model are called with."""
    if seat not in _seats:
        _seats.append(seat)
    return _seats.index(seat)


def call_tap(hidden: Tensor, residual: Tensor | None, seat: int, layer: int) -> None:
    """Read and clamp the residual stream behind a layer, in place.

    The stream is `hidden` where `residual` is None, else their sum, which vLLM forms in the next layer. Where it is
    clamped, `hidden` becomes the clamped stream and `residual` 0, so that the sum is rounded once. Both are
    `[rows, d_model]`, or `[1, rows, d_model]` in models that vLLM takes from transformers.
    """
    if residual is None:
        torch.ops.sae_monitor.tap_stream(hidden, seat, layer)
    else:
        torch.ops.sae_monitor.tap_sum(hidden, residual, seat, layer)


@torch.library.custom_op("sae_monitor::tap_stream", mutates_args=("hidden",))
def _tap_stream(hidden: Tensor, seat: int, layer: int) -> None:
    model, rows = _seats[seat], _rows(hidden)
    found = model.run(rows, layer)
    if found is not None:
        clamped, edited = found
        hidden.copy_(torch.where(edited, clamped, rows).view_as(hidden))
    if model.shared is not None and layer == model.layer:
        model.shared.note(_rows(hidden))


@torch.library.custom_op("sae_monitor::tap_sum", mutates_args=("hidden", "residual"))
def _tap_sum(hidden: Tensor, residual: Tensor, seat: int, layer: int) -> None:
    model, rows = _seats[seat], _rows(hidden)
    found = model.run(rows + _rows(residual), layer)
    if found is not None:
        clamped, edited = found
        hidden.copy_(torch.where(edited, clamped, rows).view_as(hidden))
        residual.masked_fill_(edited.view(*residual.shape[:-1], 1), 0)
    if model.shared is not None and layer == model.layer:
        model.shared.note(_rows(hidden + residual))


def _rows(stream: Tensor) -> Tensor:
    """The stream as `[rows, d_model]`."""
    return stream.reshape(-1, stream.shape[-1])


@_tap_stream.register_fake
def _(hidden: Tensor, seat: int, layer: int) -> None:
    return None


@_tap_sum.register_fake
def _(hidden: Tensor, residual: Tensor, seat: int, layer: int) -> None:
    return None
