"""Measure what a dictionary does with residuals: L0, explained variance and norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.dictionary.residual_signals import norm_limit, sinks
from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder

EARLY = 8
"""Number of tokens behind the first of each text that are also measured by themselves; they show a missing BOS."""
_TOKENS = 512
"""Tokens that are encoded at a time."""
_FEATURES = 16_384
"""Features that are encoded at a time, where the dictionary allows it."""
_RUNS, _RUN = 16, 512
"""A sample of features is this many runs of this many consecutive features."""


@dataclass(frozen=True, slots=True)
class ResidualRows:
    """Residuals of the test texts, without attention sinks."""

    x: Tensor
    """`[tokens, d_model]` float32."""
    early: Tensor
    """`[tokens]` bool: whether the token is among the first EARLY tokens of its text."""
    outliers: float
    """Share of tokens behind the first ones that were left out for their norm."""
    limit: float
    """The norm above which they were."""
    kinds: tuple[str, ...]
    """Names of the kinds of text."""
    kind: Tensor
    """`[tokens]` the kind of each token's text, as a number in `kinds`."""
    finite: bool
    """False where the residual of any token was not finite; such tokens are left out too."""

    def thinned(self, most: int) -> ResidualRows:
        """About `most` of the rows, evenly spread."""
        step = max(1, len(self.x) // most)
        return replace(self, x=self.x[::step], early=self.early[::step], kind=self.kind[::step])

    def to(self, device: torch.device) -> ResidualRows:
        """The same rows on another device."""
        return replace(self, x=self.x.to(device), early=self.early.to(device), kind=self.kind.to(device))


@dataclass(frozen=True, slots=True)
class KindNumbers:
    """The numbers of one kind of text: prose, code and so on."""

    kind: str
    l0: float
    """Mean number of active features per token."""
    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖², with the mean of these tokens."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """The numbers of one measurement, all over the same tokens."""

    tokens: int
    """Number of tokens that were measured."""
    l0: float
    """Mean number of active features per token."""
    explained_variance: float
    """1 − Σ‖x − x̂‖² / Σ‖x − mean‖²."""
    early_l0: float
    """`l0` over the first tokens of each text."""
    early_explained_variance: float
    """`explained_variance` over the first tokens of each text."""
    norm: float
    """Median norm of the residuals."""
    outliers: float
    """Share of tokens that were left out because their norm is above the pair's limit."""
    kinds: tuple[KindNumbers, ...] = ()
    """The first two numbers for each kind of text; empty where only a sample of the features was read."""

    @property
    def whole(self) -> bool:
        """False where only a sample of the features was read, so that no variance is known."""
        return not math.isnan(self.explained_variance)


def rows_of(
    texts: Sequence[Tensor], *, limit: float | None = None, kinds: Sequence[str] | None = None
) -> ResidualRows:
    """The rows of texts, each `[tokens, d_model]`, without attention sinks and without what is not finite.

    `limit` is the pair's norm limit. Without it, the limit that these texts show is taken. `kinds` says of each text
    what kind it is.
    """
    named = tuple(dict.fromkeys(kinds or ()))
    of = torch.tensor([named.index(kind) for kind in kinds] if kinds else [0] * len(texts))
    kind = of.repeat_interleave(torch.tensor([len(text) for text in texts]))
    x = torch.cat(list(texts))
    positions = torch.cat([torch.arange(len(text)) for text in texts])
    if limit is None:
        limit = norm_limit(x, positions)
    finite, left_out, behind = x.isfinite().all(-1), sinks(x, positions, limit), positions > 0
    keep = finite & ~left_out
    return ResidualRows(
        x[keep],
        (positions <= EARLY)[keep],
        float(left_out[behind].float().mean()),
        limit,
        named,
        kind[keep],
        bool(finite[behind].all()),
    )


@torch.no_grad()
def measure(rows: ResidualRows, sae: SparseAutoencoder, *, scale: float = 1.0) -> Measurement:
    """Encode and decode every row in float32. The input is multiplied by `scale`, the output divided by it."""
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
        kinds=tuple(
            KindNumbers(name, float(active[mine].mean()), _explained(rows.x[mine], left[mine]))
            for name, mine in ((name, rows.kind == number) for number, name in enumerate(rows.kinds))
            if int(mine.sum()) > 1
        ),
    )


@torch.no_grad()
def measure_sample(rows: ResidualRows, sae: SparseAutoencoder) -> Measurement:
    """Estimate L0 from a few thousand features, for dictionaries that are too large to be read at every start.

    Explained variance would need the whole dictionary and is NaN. The dictionary must be separable: every feature can
    be encoded by itself.
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
    """For every row: the number of active features, and the squared norm of the reconstruction error."""
    active, left = [], []
    for start in range(0, len(x), _TOKENS):
        part = x[start : start + _TOKENS]
        count, rebuilt = _reconstruct(part, sae)
        active.append(count)
        left.append((part - rebuilt).square().sum(-1))
    return torch.cat(active), torch.cat(left)


def _reconstruct(x: Tensor, sae: SparseAutoencoder) -> tuple[Tensor, Tensor]:
    """Number of active features and reconstruction of rows `[tokens, d_model]`.

    A large dictionary is taken in blocks of features, so that its activations are never all in memory.
    """
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
    """Undo the input normalisation of `total` and add the decoder bias.

    It is decoded by a dictionary with the same norm and bias whose decoder is the identity.
    """
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
