"""The quality of a dictionary on held-out text: sparsity, reconstruction error, and the model's loss with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from monitor.dictionary.packed_text import PackedText
from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.training.stream import Residuals

Logits = Callable[[Tensor, Callable[[Tensor], Tensor] | None], Tensor]
"""Maps token ids `[rows, length]` to logits `[rows, length, vocabulary]`.

The second argument is a function that replaces the residuals `[rows, length, d]` on the way; None replaces nothing.
"""

_ROWS = 8
"""Rows whose logits are in memory at a time."""
CROSS_ENTROPY_BATCHES = 8
"""Cross-entropies are measured on this many of the first held-out batches."""


@dataclass(frozen=True)
class DictionaryQuality:
    """Measures of a dictionary on held-out text, without attention sinks."""

    tokens: int
    """Number of tokens that all measures but the cross-entropies are taken over."""
    l0: float
    """Mean number of active features per token."""
    fvu: float
    """Fraction of variance unexplained: Σ‖x − x̂‖² / Σ‖x − mean x‖²."""
    cosine: float
    """Mean cosine of x and x̂."""
    dead: float
    """Share of features that were active at none of these tokens."""
    density: Tensor
    """`[features]`: share of these tokens at which each feature was active."""
    nearest: Tensor
    """`[features]`: each feature's largest decoder cosine with another feature."""
    ce_tokens: int
    """Number of predicted tokens that the cross-entropies are averaged over."""
    ce_clean: float
    """Cross-entropy of the unchanged model, in nats per token."""
    ce_spliced: float
    """Cross-entropy with the reconstruction in place of the residual, in nats per token."""
    ce_zero: float
    """Cross-entropy with zeros in place of the residual, in nats per token."""

    @property
    def explained_variance(self) -> float:
        """1 − FVU."""
        return 1 - self.fvu

    @property
    def ce_recovered(self) -> float:
        """(zero − spliced) / (zero − clean): 1 is as good as the unchanged model, 0 as bad as no residual."""
        return (self.ce_zero - self.ce_spliced) / (self.ce_zero - self.ce_clean)


@torch.no_grad()
def measure_quality(
    sae: SparseAutoencoder,
    held_out: Sequence[PackedText],
    residuals: Residuals,
    logits: Logits,
    *,
    limit: float,
    ce_batches: int = CROSS_ENTROPY_BATCHES,
    progress: Callable[[int], None] | None = None,
) -> DictionaryQuality:
    """Measure a dictionary on held-out text.

    Args:
        sae: the dictionary.
        held_out: batches of packed text.
        residuals: maps ids to residuals.
        logits: maps ids to logits.
        limit: the pair's norm limit; see `sinks`.
        ce_batches: cross-entropies are measured on this many of the first batches.
        progress: called with a number of tokens whenever so many more were measured. Each counts once for the
            reconstruction and once for the cross-entropies, where those are measured on it.
    """
    told = progress or (lambda tokens: None)
    sums = _Sums(sae)
    entropies = [0.0, 0.0, 0.0]
    predicted = 0
    for number, batch in enumerate(held_out):
        x = residuals(batch.ids)
        kept = ~sinks(x, batch.positions, limit)
        sums.add(x[kept])
        told(batch.tokens)
        for part in torch.split(torch.arange(len(kept)), _ROWS) if number < ce_batches else ():
            some = PackedText(batch.ids[part], batch.documents[part])
            count, found = _cross_entropies(sae, some, logits, kept[part.to(kept.device)])
            predicted += count
            entropies = [total + value for total, value in zip(entropies, found, strict=True)]
            told(some.tokens)
    clean, spliced, zero = (value / predicted for value in entropies)
    density = sums.active / sums.tokens
    return DictionaryQuality(
        tokens=sums.tokens,
        l0=float(density.sum()),
        fvu=float(sums.error / (sums.square - sums.total.square().sum() / sums.tokens)),
        cosine=sums.cosine / sums.tokens,
        dead=float((density == 0).double().mean()),
        density=density.float().cpu(),
        nearest=nearest_cosines(sae.decoder).cpu(),
        ce_tokens=predicted,
        ce_clean=clean,
        ce_spliced=spliced,
        ce_zero=zero,
    )


class _Sums:
    """Sums over the tokens so far, in float64."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self._sae = sae
        device = sae.encoder.device
        self.tokens = 0
        self.active = torch.zeros(sae.features, dtype=torch.float64, device=device)
        self.total = torch.zeros(sae.d_model, dtype=torch.float64, device=device)
        self.square = torch.zeros((), dtype=torch.float64, device=device)
        self.error = torch.zeros((), dtype=torch.float64, device=device)
        self.cosine = 0.0

    def add(self, x: Tensor) -> None:
        """Add residuals `[tokens, d]`."""
        a = self._sae.encode(x)
        out = self._sae.decode(a, x)
        self.tokens += x.shape[0]
        self.active += (a > 0).sum(0)
        self.total += x.double().sum(0)
        self.square += x.double().square().sum()
        self.error += (x.double() - out.double()).square().sum()
        self.cosine += float(functional.cosine_similarity(x, out, dim=-1).double().sum())


def nearest_cosines(decoder: Tensor) -> Tensor:
    """`[features]`: the largest cosine of each row of `decoder` `[features, d]` with another row."""
    rows = functional.normalize(decoder, dim=1)
    out = []
    for start in range(0, rows.shape[0], 1024):
        cosines = rows[start : start + 1024] @ rows.T
        cosines[torch.arange(cosines.shape[0]), torch.arange(start, start + cosines.shape[0])] = -1
        out.append(cosines.max(dim=1).values)
    return torch.cat(out)


def _cross_entropies(
    sae: SparseAutoencoder, batch: PackedText, logits: Logits, kept: Tensor
) -> tuple[int, tuple[float, float, float]]:
    """Number of predicted tokens, and their (clean, spliced, zero) cross-entropies added up.

    `kept` `[rows, length]` is False at attention sinks. They keep their residuals, and are not predicted.
    """
    keep = kept.cpu()

    def splice(x: Tensor) -> Tensor:
        return torch.where(keep.to(x.device).unsqueeze(-1), sae.reconstruct(x.float()).to(x.dtype), x)

    def zero(x: Tensor) -> Tensor:
        return x.masked_fill(keep.to(x.device).unsqueeze(-1), 0)

    wanted = keep[:, 1:]
    targets = batch.ids[:, 1:][wanted]

    def nats(replace: Callable[[Tensor], Tensor] | None) -> float:
        out = logits(batch.ids, replace)[:, :-1].float()
        found = functional.cross_entropy(out[wanted.to(out.device)], targets.to(out.device), reduction="sum")
        return float(found)

    return int(wanted.sum()), (nats(None), nats(splice), nats(zero))
