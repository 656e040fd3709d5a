"""Edits of the residual stream that experiments compare: clamps of features, and subtraction of a dense direction.

Clamps run through the same tap as in the server. Subtracting a direction is the baseline to compare them with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monitor.dictionary.sae import SparseAutoencoder
from monitor.model.offline.steered_model import Edit
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import clamp_row, write_rows
from monitor.model.tap.error_term import ErrorTermDropper
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Clamp, ErrorTerm


class Clamped:
    """An edit that clamps features on every token but the first, through the same tap as in the server."""

    def __init__(
        self, autoencoder: SparseAutoencoder, maximum: Tensor, clamps: Sequence[Clamp], device: torch.device
    ) -> None:
        features = [clamp.feature for clamp in clamps]
        self._bank = FeatureBank(autoencoder, maximum, features, spare=0, device=device)
        drops = any(clamp.error_term is ErrorTerm.DROP for clamp in clamps)
        dropper = ErrorTermDropper(autoencoder, self._bank.device, self._bank.dtype) if drops else None
        self._tap = Tap(self._bank, nn.Identity(), dropper)
        self._row = clamp_row(clamps, self._bank)

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Edited residuals, from residuals `[rows, time, d_model]` whose first column is at position `first`."""
        rows, time, width = x.shape
        buffers = TapBuffers(self._bank, rows * time)
        spans = [(Span(str(row), row * time, time, first, False), self._row) for row in range(rows)]
        write_rows(buffers, spans, rows * time)
        buffers.settle(self._bank)
        edited = self._tap.apply(x.reshape(-1, width), buffers)
        assert edited is not None
        return edited.view_as(x)


class Subtracted:
    """An edit that subtracts a direction: x' = x − strength · direction, on every token but the first.

    The first token is an attention sink, whose residual is unlike all others.
    """

    def __init__(self, direction: Tensor, strength: float) -> None:
        self._shift = direction * strength

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Edited residuals, from residuals `[rows, time, d_model]` whose first column is at position `first`."""
        edited = x - self._shift.to(x)
        if first == 0:
            edited[:, 0] = x[:, 0]
        return edited


def ablated(
    autoencoder: SparseAutoencoder, maximum: Tensor, features: Sequence[int], device: torch.device
) -> Edit:
    """An edit that sets the features' activations to 0 where they are active (zero ablation)."""
    return Clamped(autoencoder, maximum, [Clamp(feature, 0.0) for feature in features], device)
