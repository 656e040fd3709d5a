"""Linear probes at layers after the tapped one, computed in passes that clamp.

They show whether a suppressed concept comes back at a later layer. They edit nothing.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from monitor.errors import ModelError
from monitor.model.load.hook_points import hidden_of
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import LaterProbe

COLUMNS = 64
"""Maximum number of different probes at once. A policy whose probe finds no column is not checked at a later layer,
and its verdict says so."""


@dataclass(frozen=True)
class _LayerProbes:
    """The probes of one layer as matrices."""

    columns: Tensor
    """`[probes]` columns of `buffers.later` that they write."""
    weights: Tensor
    """`[probes, d_model]`"""
    bias: Tensor
    """`[probes]`"""


class LaterTaps:
    """Forward hooks on the layers of the probes in use: `buffers.later[row, i] = weights_i · x + bias_i`.

    Probes can be added while passes run. The column of a probe may be reused once no running request needs it. A
    captured CUDA graph replays only the probes that existed when it was captured, so `freeze` stops all changes.
    Thread-safe.
    """

    def __init__(self, layers: nn.ModuleList, tap: Tap, tapped: int) -> None:
        self._layers, self._tap, self._tapped = layers, tap, tapped
        self._columns = OrderedDict[bytes, int]()
        """Column of every probe that is read, by its key, in the order of last use."""
        self._probes: list[LaterProbe] = []
        """The probe of every column."""
        self._running: Counter[bytes] = Counter()
        """Number of running requests that need a probe, by its key."""
        self._frozen = False
        self._at: dict[int, _LayerProbes] = {}
        self._handles: dict[int, Any] = {}
        self._attached = False
        self._lock = threading.RLock()

    def add(self, probes: Iterable[LaterProbe]) -> None:
        """Read these probes from the next pass on, as far as columns are free.

        Raises ModelError, without any change, where one does not lie after the tapped layer or does not fit the model.
        """
        wanted = {_key(probe): probe for probe in probes}
        for probe in wanted.values():
            self._check(probe)
        with self._lock:
            before = OrderedDict(self._columns), list(self._probes), dict(self._at)
            try:
                self._add(wanted)
            except BaseException:
                # Such as want of memory: what the engine reads stays what it was.
                self._columns, self._probes, self._at = before
                raise

    def _add(self, wanted: Mapping[bytes, LaterProbe]) -> None:
        changed: set[int] = set()
        for key, probe in wanted.items():
            if key in self._columns:
                self._columns.move_to_end(key)  # in one step: the engine reads without the lock
            elif (column := self._assign(probe, changed)) is not None:
                self._columns[key] = column
        for layer in changed:
            self._at[layer] = self._layer(layer)
        if self._attached:
            self._hook_all()

    def acquire(self, probes: Iterable[LaterProbe]) -> None:
        """Add probes for a request and keep their columns until `release`."""
        probes = list(probes)
        with self._lock:
            self.add(probes)
            self._running.update(map(_key, probes))

    def release(self, probes: Iterable[LaterProbe]) -> None:
        """Undo one `acquire`."""
        with self._lock:
            self._running.subtract(map(_key, probes))
            self._running = +self._running

    def freeze(self) -> None:
        """Give no column to any further probe, because a CUDA graph was captured."""
        with self._lock:
            self._frozen = True

    def _assign(self, probe: LaterProbe, changed: set[int]) -> int | None:
        """A column for a new probe; None where none is free. Adds the layers that must be rebuilt to `changed`."""
        idle = next((key for key in self._columns if key not in self._running), None)
        if self._frozen or (idle is None and len(self._probes) >= COLUMNS):
            return None
        changed.add(probe.layer)
        if len(self._probes) < COLUMNS:
            self._probes.append(probe)
            return len(self._probes) - 1
        assert idle is not None
        column = self._columns.pop(idle)
        changed.add(self._probes[column].layer)
        self._probes[column] = probe
        return column

    def column(self, probe: LaterProbe | None) -> int | None:
        """Column of a probe's scores in `buffers.later`; None where it is not read."""
        return None if probe is None else self._columns.get(_key(probe))

    def columns(self) -> list[int]:
        """Columns of `buffers.later` that passes write."""
        return list(self._columns.values())

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
            if buffers is not None:
                hidden = hidden_of(output)
                self.read(layer, hidden.reshape(-1, hidden.shape[-1]), buffers)

        return read

    def read(self, layer: int, x: Tensor, buffers: TapBuffers) -> None:
        """Write the scores of a layer's probes for residuals `[rows, d_model]`, in a pass that clamps."""
        probes = self._at.get(layer)
        if probes is None or not (buffers.clamping or buffers.static):
            return
        # A later layer of a model on several devices may compute on another one than the tapped layer.
        x = x.to(probes.weights)
        buffers.later[: x.shape[0], probes.columns] = x @ probes.weights.T + probes.bias

    def _layer(self, layer: int) -> _LayerProbes:
        mine = [(column, probe) for column, probe in enumerate(self._probes) if probe.layer == layer]
        bank = self._tap.bank
        place: dict[str, Any] = {"device": bank.device, "dtype": bank.dtype}
        weights = torch.zeros(len(mine), bank.d_model)
        for row, (_, probe) in enumerate(mine):
            weights[row] = torch.from_numpy(probe.weights)
        return _LayerProbes(
            torch.tensor([column for column, _ in mine], dtype=torch.int64, device=bank.device),
            weights.to(**place),
            torch.tensor([probe.bias for _, probe in mine]).to(**place),
        )

    def _check(self, probe: LaterProbe) -> None:
        last, width = len(self._layers) - 1, self._tap.bank.d_model
        if not self._tapped < probe.layer <= last:
            raise ModelError(
                f"a later probe reads layer {probe.layer}; it must read a layer after the tapped layer "
                f"{self._tapped}, up to the last, {last}. Run `sae-monitor policy fit` again"
            )
        if len(probe.weights) != width:
            raise ModelError(
                f"a later probe has {len(probe.weights)} weights and the model is {width} wide; run `sae-monitor "
                "policy fit` again"
            )


def _key(probe: LaterProbe) -> bytes:
    return b"%d %r " % (probe.layer, probe.bias) + probe.weights.tobytes()
