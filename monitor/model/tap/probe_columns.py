"""Probes and signals at the tapped layer, as columns of readings beside those of the features.

The two signals are the norm of the residual and the error of its reconstruction. The tensors are allocated once, so
that a captured CUDA graph also reads probes that a later policy set brings.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import linear

from monitor.dictionary.residual_signals import reconstruction_error, residual_norm
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import ConfigurationError, ModelError
from monitor.records import Probe, Signal, WatchPlan

RESERVE = 8
"""Columns kept free for probes of policy sets that are loaded later."""
SIGNALS = tuple(Signal)


class ProbeColumns:
    """The probes and signals that policy sets read, and the tensors that compute them. Thread-safe.

    A probe costs one row of a matrix product. The reconstruction error costs an encode and a decode of every token with
    the whole dictionary, which is loaded only where a policy reads it.
    """

    def __init__(
        self,
        autoencoder: SparseAutoencoder,
        plan: WatchPlan | None = None,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        plan = plan or WatchPlan(())
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self._autoencoder, self._place, self._d_model = autoencoder, place, autoencoder.d_model
        probes = len(plan.probes) + RESERVE
        self._weights = torch.zeros(probes, autoencoder.d_model, **place)
        self._bias = torch.zeros(probes, **place)
        self._of: dict[Probe, int] = {}
        self._free = list(range(probes - 1, -1, -1))
        self._held: Counter[Probe | Signal] = Counter()
        self._whole: SparseAutoencoder | None = None
        self.version = 0
        """Grows whenever a column comes to mean something else: with a probe that comes or goes, and once the
        reconstruction error is computed. A policy set that reads the same as one before it changes nothing."""
        self._lock = threading.RLock()
        self.release_first = self.hold(plan)
        """Call it to release what the first policy set holds."""

    @property
    def width(self) -> int:
        """Number of columns, free ones included."""
        return len(self._bias) + len(SIGNALS)

    @property
    def read_any(self) -> bool:
        """True where any policy set reads a probe or a signal."""
        return bool(self._held)

    @property
    def whole(self) -> bool:
        """True where the whole dictionary is in memory for the reconstruction error."""
        return self._whole is not None

    def hold(self, plan: WatchPlan) -> Callable[[], None]:
        """Reserve columns for a plan's probes and signals. Returns a function that releases them.

        Raises ConfigurationError where too few columns are free and ModelError where a probe has another width than the
        model; then nothing is reserved.
        """
        named: list[Probe | Signal] = [*plan.probes, *plan.signals]
        with self._lock:
            new = [probe for probe in plan.probes if probe not in self._of]
            if len(new) > len(self._free):
                raise ConfigurationError(
                    f"the new policies bring {len(new)} probes, and {len(self._free)} more fit into the running "
                    "server; restart it"
                )
            for probe in new:
                _check(probe, self._d_model)
            if Signal.RECONSTRUCTION_ERROR in plan.signals and self._whole is None:
                self._whole = self._autoencoder.whole().to(self._place["device"], self._place["dtype"])
                self.version += 1
            self._held.update(named)
            try:
                for probe in new:
                    self._fill(probe)
            except BaseException:
                self._release(named)
                raise
        return lambda: self._release(named)

    def where(self, plan: WatchPlan) -> NDArray[np.intp] | None:
        """Columns of a plan's probes and signals in the result of `read`, in the plan's order.

        None where the plan has neither.
        """
        probes = [self._of[probe] for probe in plan.probes]
        signals = [len(self._bias) + SIGNALS.index(signal) for signal in plan.signals]
        return np.asarray([*probes, *signals], np.intp) if probes or signals else None

    def read(self, x: Tensor) -> Tensor:
        """Values `[rows, width]` of probes and signals for residuals `[rows, d_model]`.

        Rows that are not finite give NaN. Free columns give 0. The norm is always computed.
        """
        x = x.to(self._place["dtype"])
        norm = residual_norm(x)
        error = torch.zeros_like(norm) if self._whole is None else reconstruction_error(self._whole, x)
        probes = linear(x, self._weights, self._bias)
        return torch.cat([probes, norm[:, None], error[:, None]], dim=1) + 0 * x.sum(-1, keepdim=True)

    def _fill(self, probe: Probe) -> None:
        row = torch.tensor(probe.weights, dtype=torch.float64) / probe.scale
        bias = probe.bias / probe.scale
        slot = self._of[probe] = self._free.pop()
        self.version += 1
        self._weights[slot] = row.to(**self._place)
        self._bias[slot] = bias

    def _release(self, named: Sequence[Probe | Signal]) -> None:
        with self._lock:
            for held in named:
                self._held[held] -= 1
                if self._held[held] == 0:
                    del self._held[held]
                    if isinstance(held, Probe) and (slot := self._of.pop(held, None)) is not None:
                        self.version += 1
                        self._weights[slot] = 0
                        self._bias[slot] = 0
                        self._free.append(slot)


def _check(probe: Probe, d_model: int) -> None:
    if len(probe.weights) != d_model:
        raise ModelError(
            f"the probe of `{probe.name}` has {len(probe.weights)} weights, and the residual stream is {d_model} wide; "
            "fit the policy to this model"
        )
