"""Edits of the residual stream that experiments compare: clamps of features, and subtraction of a dense direction.

Clamps run through the same tap as in the server. Subtracting a direction is the baseline to compare them with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.sae import SparseAutoencoder
from monitor.model.offline.steered_model import Edit
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.clamps import clamp_row, write_rows
from monitor.model.tap.error_term import ErrorTermDropper
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap, TapBuffers
from monitor.records import Clamp, ErrorTerm


class Clamped:
    """An edit that clamps features on all tokens but attention sinks, through the same tap as in the server.

    `limit` is the pair's norm limit, above which a residual is a sink's.
    """

    def __init__(
        self,
        autoencoder: SparseAutoencoder,
        maximum: Tensor,
        clamps: Sequence[Clamp],
        device: torch.device,
        *,
        limit: float = math.inf,
    ) -> None:
        features = [clamp.feature for clamp in clamps]
        self._bank = FeatureBank(autoencoder, maximum, features, spare=0, device=device)
        drops = any(clamp.error_term is ErrorTerm.DROP for clamp in clamps)
        dropper = ErrorTermDropper(autoencoder, self._bank.device, self._bank.dtype) if drops else None
        self._tap = Tap(self._bank, nn.Identity(), dropper, norm_limit=limit)
        self._row = clamp_row(clamps, self._bank)

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Edited residuals, from residuals `[rows, time, d_model]` whose first column is at position `first`."""
        rows, time, width = x.shape
        buffers = TapBuffers(self._bank, rows * time)
        spans = [(Span(str(row), row * time, time, first, False), self._row) for row in range(rows)]
        write_rows(buffers, spans, rows * time)
        buffers.begin([row * time for row in range(rows)] if first == 0 else [])
        buffers.settle(self._bank)
        edited = self._tap.apply(x.reshape(-1, width), buffers)
        assert edited is not None
        return edited.view_as(x)


class Subtracted:
    """An edit that subtracts a direction: x' = x − strength · direction, on all tokens but attention sinks.

    `limit` is the pair's norm limit, above which a residual is a sink's.
    """

    def __init__(self, direction: Tensor, strength: float, *, limit: float = math.inf) -> None:
        self._shift, self._limit = direction * strength, limit

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Edited residuals, from residuals `[rows, time, d_model]` whose first column is at position `first`."""
        positions = torch.arange(first, first + x.shape[1]).expand(x.shape[:2])
        kept = sinks(x, positions, self._limit).unsqueeze(-1)
        return torch.where(kept, x, x - self._shift.to(x))


class Projected:
    """An edit that takes away a share of what lies along a direction: x' = x − share · (x·d) d, d of unit length.

    A share of 1 leaves nothing of the direction (directional ablation), 2 mirrors it. Attention sinks are left alone;
    `limit` is the pair's norm limit, above which a residual is a sink's.
    """

    def __init__(self, direction: Tensor, share: float, *, limit: float = math.inf) -> None:
        self._unit = direction / direction.norm().clamp_min(1e-30)
        self._share, self._limit = share, limit

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Edited residuals, from residuals `[rows, time, d_model]` whose first column is at position `first`."""
        positions = torch.arange(first, first + x.shape[1]).expand(x.shape[:2])
        kept = sinks(x, positions, self._limit).unsqueeze(-1)
        unit = self._unit.to(x)
        return torch.where(kept, x, x - self._share * (x @ unit).unsqueeze(-1) * unit)


class ByRows:
    """An edit of many texts at once under several edits: the first so many rows under the first of them, and so on."""

    def __init__(self, parts: Sequence[tuple[int, Edit]]) -> None:
        """Pairs of (number of rows, their edit), in the order of the rows."""
        self._counts, self._edits = [count for count, _ in parts], [edit for _, edit in parts]

    def __call__(self, x: Tensor, first: int) -> Tensor:
        """Edited residuals, from residuals `[rows, time, d_model]` whose first column is at position `first`."""
        pieces = torch.split(x, self._counts)
        return torch.cat([edit(piece, first) for edit, piece in zip(self._edits, pieces, strict=True)])


def ablated(
    autoencoder: SparseAutoencoder,
    maximum: Tensor,
    features: Sequence[int],
    device: torch.device,
    *,
    limit: float = math.inf,
) -> Edit:
    """An edit that sets the features' activations to 0 where they are active (zero ablation)."""
    clamps = [Clamp(feature, 0.0) for feature in features]
    return Clamped(autoencoder, maximum, clamps, device, limit=limit)
