"""Linear probes behind the tapped layer, read on tokens that run while something is clamped.

Knows layers, weights and the tap's buffers of the calling thread. Edits nothing. Does not know requests or policies.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monitor.errors import ModelError
from monitor.model.places import hidden_of
from monitor.model.tap import Tap, TapBuffers
from monitor.suppression import LaterProbe

COLUMNS = 64
"""Most different probes; policies that are loaded beyond that are not checked behind the layer, and say so."""


@dataclass(frozen=True)
class _Layer:
    """The probes of one layer."""

    columns: Tensor
    weights: Tensor
    """`[probes, d_model]`"""
    bias: Tensor


class LaterTaps:
    """Forward hooks on the layers of some probes: `buffers.later[row, i] = weights_i · x + bias_i`.

    Probes may be added while passes run, but a captured CUDA graph replays only those that were there before.
    """

    def __init__(self, layers: nn.ModuleList, tap: Tap, tapped: int) -> None:
        self._layers, self._tap, self._tapped = layers, tap, tapped
        self._columns: dict[bytes, int] = {}
        self._probes: list[LaterProbe] = []
        self._at: dict[int, _Layer] = {}
        self._handles: dict[int, Any] = {}
        self._attached = False
        self._lock = threading.Lock()

    def host(self, probes: Iterable[LaterProbe]) -> None:
        """Read these probes from now on. ModelError where one cannot be read behind the tapped layer."""
        with self._lock:
            new = {_key(probe): probe for probe in probes if _key(probe) not in self._columns}
            for probe in new.values():
                self._check(probe)
            read = list(new.items())[: COLUMNS - len(self._probes)]
            for key, probe in read:
                self._columns[key] = len(self._probes)
                self._probes.append(probe)
            for layer in {probe.layer for _, probe in read}:
                self._at[layer] = self._layer(layer)
            if self._attached:
                self._hook_all()

    def column(self, probe: LaterProbe | None) -> int | None:
        """Where the scores of a probe are; None for one that is not read."""
        return None if probe is None else self._columns.get(_key(probe))

    def attach(self) -> None:
        """Install the hooks; does nothing where they are installed."""
        with self._lock:
            self._attached = True
            self._hook_all()

    def detach(self) -> None:
        """Remove the hooks."""
        with self._lock:
            self._attached = False
            while self._handles:
                self._handles.popitem()[1].remove()

    def _hook_all(self) -> None:
        for layer in self._at:
            if layer not in self._handles:
                self._handles[layer] = self._layers[layer].register_forward_hook(self._hook(layer))

    def _hook(self, layer: int) -> Any:
        def read(_module: nn.Module, _args: object, output: Any) -> None:
            buffers: TapBuffers | None = self._tap.current()
            if buffers is None or not (buffers.clamping or buffers.static):
                return
            probes, hidden = self._at[layer], hidden_of(output)
            x = hidden.reshape(-1, hidden.shape[-1]).to(probes.weights.dtype)
            buffers.later[: x.shape[0], probes.columns] = x @ probes.weights.T + probes.bias

        return read

    def _layer(self, layer: int) -> _Layer:
        mine = [(column, probe) for column, probe in enumerate(self._probes) if probe.layer == layer]
        bank = self._tap.bank
        place: dict[str, Any] = {"device": bank.device, "dtype": bank.dtype}
        return _Layer(
            torch.tensor([column for column, _ in mine], device=bank.device),
            torch.stack([torch.from_numpy(probe.weights.copy()) for _, probe in mine]).to(**place),
            torch.tensor([probe.bias for _, probe in mine]).to(**place),
        )

    def _check(self, probe: LaterProbe) -> None:
        last, width = len(self._layers) - 1, self._tap.bank.d_model
        if not self._tapped < probe.layer <= last:
            raise ModelError(
                f"a later probe reads layer {probe.layer}; it must lie behind the tapped layer {self._tapped} and not "
                f"behind the last, {last}. Run `sae-monitor policy fit` again"
            )
        if len(probe.weights) != width:
            raise ModelError(
                f"a later probe has {len(probe.weights)} weights and the model is {width} wide; run `sae-monitor "
                "policy fit` again"
            )


def _key(probe: LaterProbe) -> bytes:
    return b"%d %r " % (probe.layer, probe.bias) + probe.weights.tobytes()
