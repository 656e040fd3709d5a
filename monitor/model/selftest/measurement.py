"""What a dictionary does with residuals, in a few numbers.

Knows the whole dictionary and rows of residuals. Does not know the model, nor what numbers are good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder

OUTLIER = 10.0
"""A token whose residual is longer than this many median residuals is an outlier, as attention sinks are."""
EARLY = 8
"""Tokens at the beginning of each text that are measured apart: they show whether BOS is there."""
_TOKENS = 512
_FEATURES = 16_384
_RUNS, _RUN = 16, 512


@dataclass(frozen=True, slots=True)
class ResidualRows:
    """Residuals of the texts without BOS and without norm outliers."""

    x: Tensor
    """`[tokens, d_model]` float32."""
    early: Tensor
    """`[tokens]` bool: among the first EARLY tokens of a text."""
    outliers: float
    """Share of tokens that were left out for their norm."""
    finite: bool
    """False where a token's residual held NaN or infinity; those are left out too."""

    def thinned(self, most: int) -> ResidualRows:
        """About `most` rows, evenly spread."""
        step = max(1, len(self.x) // most)
        return replace(self, x=self.x[::step], early=self.early[::step])

    def to(self, device: torch.device) -> ResidualRows:
        """The same rows elsewhere."""
        return replace(self, x=self.x.to(device), early=self.early.to(device))


@dataclass(frozen=True, slots=True)
class Measurement:
    """All over the same tokens."""

    tokens: int
    l0: float
    """Mean number of active features per token."""
    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖²."""
    early_l0: float
    early_explained_variance: float
    """The same over the first tokens of each text."""
    norm: float
    """Median length of a residual."""
    outliers: float
    """Share of tokens whose residual is more than ten times as long."""

    @property
    def whole(self) -> bool:
        """False where only a sample of the features was read, so that nothing could be reconstructed."""
        return not math.isnan(self.explained_variance)


def rows_of(texts: Sequence[Tensor], *, skip: int) -> ResidualRows:
    """Rows of texts `[tokens, d_model]`, the first `skip` of each (BOS) left out."""
    kept = [text[skip:] for text in texts]
    x = torch.cat(kept)
    early = torch.cat([torch.arange(len(text)) < EARLY for text in kept])
    finite = torch.isfinite(x).all(-1)
    norms = x.norm(dim=-1)
    median = norms[finite].median() if bool(finite.any()) else torch.zeros(())
    far = norms > OUTLIER * median
    keep = finite & ~far
    return ResidualRows(x[keep], early[keep], float((far & finite).float().mean()), bool(finite.all()))


@torch.no_grad()
def measure(rows: ResidualRows, sae: SparseAutoencoder, *, scale: float = 1.0) -> Measurement:
    """Encode and decode every row in float32. `scale` multiplies what the encoder reads, and is undone behind it."""
    if not _in_blocks(sae):
        sae = sae.to(rows.x.device)
    active, left = _errors(rows.x * scale, sae)
    left = left / scale**2
    return Measurement(
        tokens=len(rows.x),
        l0=float(active.mean()),
        explained_variance=_explained(rows.x, left),
        early_l0=float(active[rows.early].mean()),
        early_explained_variance=_explained(rows.x[rows.early], left[rows.early]),
        norm=float(rows.x.norm(dim=-1).median()),
        outliers=rows.outliers,
    )


@torch.no_grad()
def measure_sample(rows: ResidualRows, sae: SparseAutoencoder) -> Measurement:
    """L0 estimated from a few thousand features, for dictionaries that are too large to be read at every start.

    What would need the whole dictionary is NaN. Separable kinds only.
    """
    starts = torch.arange(_RUNS) * (sae.features // _RUNS)
    chosen = (starts[:, None] + torch.arange(min(_RUN, sae.features // _RUNS))).flatten()
    some = sae.select(chosen).to(rows.x.device)
    active = torch.cat([(some.encode(x) > 0).sum(-1) for x in torch.split(rows.x, _TOKENS)]).float()
    active *= sae.features / len(chosen)
    return Measurement(
        tokens=len(rows.x),
        l0=float(active.mean()),
        explained_variance=math.nan,
        early_l0=float(active[rows.early].mean()),
        early_explained_variance=math.nan,
        norm=float(rows.x.norm(dim=-1).median()),
        outliers=rows.outliers,
    )


def _explained(x: Tensor, left: Tensor) -> float:
    x = x.double()
    return float(1 - left.double().sum() / (x - x.mean(0)).square().sum().clamp_min(1e-30))


def _errors(x: Tensor, sae: SparseAutoencoder) -> tuple[Tensor, Tensor]:
    """Per row: active features, and the squared length of what the reconstruction leaves."""
    active, left = [], []
    for start in range(0, len(x), _TOKENS):
        part = x[start : start + _TOKENS]
        count, rebuilt = _reconstruct(part, sae)
        active.append(count)
        left.append((part - rebuilt).square().sum(-1))
    return torch.cat(active), torch.cat(left)


def _reconstruct(x: Tensor, sae: SparseAutoencoder) -> tuple[Tensor, Tensor]:
    """A block of features at a time, so that a large dictionary needs no table of all activations."""
    if not _in_blocks(sae):
        a = sae.encode(x)
        return (a > 0).sum(-1).float(), sae.decode(a, x)
    normed, _, _ = sae.normalise(x)
    count, total = torch.zeros(len(x), device=x.device), torch.zeros_like(x)
    for first in range(0, sae.features, _FEATURES):
        block = sae.select(torch.arange(first, min(first + _FEATURES, sae.features)))
        block = replace(block, input_norm=InputNorm.NONE).to(x.device)
        a = block.encode(normed)
        count += (a > 0).sum(-1)
        total += a @ block.decoder
    return count, _unnormalised(total, x, sae)


def _in_blocks(sae: SparseAutoencoder) -> bool:
    return sae.separable and sae.features > _FEATURES


def _unnormalised(total: Tensor, x: Tensor, sae: SparseAutoencoder) -> Tensor:
    """`total` in the units of `x`, with the decoder bias: a dictionary whose features are the axes decodes it."""
    width = x.shape[-1]
    axes = SparseAutoencoder(
        activation=Activation.RELU,
        encoder=torch.zeros(width, width),
        encoder_bias=torch.zeros(width),
        decoder=torch.eye(width),
        decoder_bias=sae.decoder_bias,
        input_norm=sae.input_norm,
    )
    return axes.to(x.device).decode(total, x)
