"""The tap as a torch operator, so that compiled models and captured CUDA graphs hold it.

To a compiler the operator is opaque: it is traced as one call that changes its arguments. What it does is the `Tap` of
the model that it stands in, on tensors that are allocated once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.model.tap.late_probes import LaterTaps
from monitor.model.tap.tap import Tap

VERSION = 1
"""Of what stands in the graph. It goes into the key of vLLM's compile cache, which cannot see plug-ins."""


@dataclass(eq=False)
class Seat:
    """What the operators of one model do."""

    tap: Tap
    layer: int
    """Layer after which the residual stream is read and clamped."""
    later: LaterTaps | None = None
    later_layers: tuple[int, ...] = ()
    """Layers behind it after which probes are read."""


_seats: list[Seat] = []
"""By number. A number is part of the compiled graph, so it is the order in which models were loaded."""


def take_seat(seat: Seat) -> int:
    """Number of a seat, which the operators of its model are called with."""
    if seat not in _seats:
        _seats.append(seat)
    return _seats.index(seat)


def call_tap(hidden: Tensor, residual: Tensor | None, seat: int, layer: int) -> None:
    """Read and clamp the residual stream behind a layer, in place.

    The stream is `hidden` where `residual` is None, else their sum, which vLLM forms in the next layer. Where it is
    clamped, `hidden` becomes the clamped stream and `residual` 0, so that the sum is rounded once.
    """
    if residual is None:
        torch.ops.sae_monitor.tap_stream(hidden, seat, layer)
    else:
        torch.ops.sae_monitor.tap_sum(hidden, residual, seat, layer)


@torch.library.custom_op("sae_monitor::tap_stream", mutates_args=("hidden",))
def _tap_stream(hidden: Tensor, seat: int, layer: int) -> None:
    found = _run(hidden, _seats[seat], layer)
    if found is not None:
        clamped, edited = found
        hidden.copy_(torch.where(edited, clamped, hidden))


@torch.library.custom_op("sae_monitor::tap_sum", mutates_args=("hidden", "residual"))
def _tap_sum(hidden: Tensor, residual: Tensor, seat: int, layer: int) -> None:
    found = _run(hidden + residual, _seats[seat], layer)
    if found is not None:
        clamped, edited = found
        hidden.copy_(torch.where(edited, clamped, hidden))
        residual.masked_fill_(edited, 0)


@_tap_stream.register_fake
def _(hidden: Tensor, seat: int, layer: int) -> None:
    return None


@_tap_sum.register_fake
def _(hidden: Tensor, residual: Tensor, seat: int, layer: int) -> None:
    return None


def _run(x: Tensor, seat: Seat, layer: int) -> tuple[Tensor, Tensor] | None:
    """The clamped stream `[rows, d_model]` and which rows `[rows, 1]` clamps edited; None where none can have been."""
    buffers = seat.tap.current()
    if buffers is None:  # a pass of vLLM's own, such as one that warms up
        return None
    if layer != seat.layer:
        if seat.later is not None:
            seat.later.read(layer, x, buffers)
        return None
    clamped = seat.tap.apply(x, buffers)
    if clamped is None:
        return None
    return clamped, buffers.chosen[: len(x), : buffers.slots(seat.tap.bank)].any(-1, keepdim=True)
