"""The columns of readings that are no features: probes, then signals.

Knows residuals `[rows, d_model]`. Does not know slots, clamps or rows of requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from monitor.dictionary.autoencoder import SparseAutoencoder
from monitor.dictionary.signals import reconstruction_error, residual_norm
from monitor.errors import ModelError
from monitor.records import Probe, Signal


class Columns:
    """Probes cost one row of a matrix product each. The reconstruction error needs the whole dictionary, which is
    held in memory and encodes and decodes every token where a policy asks for it, and only there.
    """

    def __init__(
        self,
        autoencoder: SparseAutoencoder,
        probes: Sequence[Probe] = (),
        signals: Sequence[Signal] = (),
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        d_model = autoencoder.d_model
        for probe in probes:
            if len(probe.weights) != d_model:
                raise ModelError(
                    f"the probe of `{probe.name}` has {len(probe.weights)} weights, and the residual stream is "
                    f"{d_model} wide; fit the policy to this model"
                )
        rows = [[w / probe.scale for w in probe.weights] for probe in probes]
        self._weights = torch.tensor(rows, dtype=torch.float64).reshape(-1, d_model).to(**place)
        self._bias = torch.tensor([p.bias / p.scale for p in probes], dtype=torch.float64).to(**place)
        self._signals = tuple(signals)
        self._dtype = dtype
        whole = Signal.RECONSTRUCTION_ERROR in self._signals
        self._whole = autoencoder.to(device, dtype) if whole else None

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self._bias) + len(self._signals)

    def read(self, x: Tensor) -> Tensor:
        """Values `[rows, width]` of residuals `[rows, d_model]`; NaN for rows that are not finite."""
        x = x.to(self._dtype)
        parts = [linear(x, self._weights, self._bias)]
        for signal in self._signals:
            parts.append(self._signal(signal, x)[:, None])
        return torch.cat(parts, dim=1) + 0 * x.sum(-1, keepdim=True)

    def _signal(self, signal: Signal, x: Tensor) -> Tensor:
        if signal is Signal.RESIDUAL_NORM:
            return residual_norm(x)
        assert self._whole is not None
        return reconstruction_error(self._whole, x)
