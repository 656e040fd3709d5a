"""Pooling of activations and residuals over the tokens of a text: maximum and mean.

Attention sinks and padding do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.residual_signals import sinks
from monitor.dictionary.sae import SparseAutoencoder
from monitor.errors import InputError

_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class PooledTexts:
    """Pooled activations and residuals, one row per text, in float32 on the CPU."""

    maximum: Tensor
    """`[texts, features]`: highest activation over the text's tokens."""
    mean: Tensor
    """`[texts, features]`: mean activation over the text's tokens."""
    peak: Tensor
    """`[texts, features]` int32: position of the highest activation, counted from BOS; 0 where inactive."""
    residual: Tensor
    """`[texts, d_model]`: mean residual over the text's tokens."""
    tokens: Tensor
    """`[texts]` int64: number of tokens that counted."""

    def rows(self, which: Tensor | Sequence[int]) -> PooledTexts:
        """Some of the texts: a mask `[texts]`, or their numbers."""
        kept = [self.maximum, self.mean, self.peak, self.residual, self.tokens]
        return PooledTexts(*(tensor[which] for tensor in kept))


@torch.no_grad()
def pool(
    texts: Sequence[Sequence[int]],
    residuals: Callable[[Tensor, Sequence[int]], Tensor],
    autoencoder: SparseAutoencoder,
    *,
    limit: float,
    starts: Sequence[int] | None = None,
    batch_tokens: int = 8192,
    progress: Callable[[int], None] | None = None,
) -> PooledTexts:
    """Pool the activations and residuals of every text.

    Args:
        texts: token ids of each text, with BOS first where the model has one.
        residuals: maps ids `[batch, time]`, padded on the right, and the lengths of the texts to residuals `[batch,
            time, d_model]`.
        autoencoder: the dictionary.
        limit: the pair's norm limit; see `sinks`.
        starts: for each text the first position that counts, such as that of the answer to a prompt. Without it, all
            positions but the first count.
        batch_tokens: tokens per forward pass, with padding.
        progress: called after each batch with its number of texts.

    Raises:
        InputError: a text has no token to count.
    """
    begin = [max(1, start) for start in starts] if starts is not None else [1] * len(texts)
    count, features, width = len(texts), autoencoder.features, autoencoder.d_model
    out = PooledTexts(
        maximum=torch.zeros(count, features),
        mean=torch.zeros(count, features),
        peak=torch.zeros(count, features, dtype=torch.int32),
        residual=torch.zeros(count, width),
        tokens=torch.zeros(count, dtype=torch.int64),
    )
    for batch in _batches(texts, min(batch_tokens, max(1, _CHUNK_NUMBERS // features))):
        ids, real = _padded([texts[index] for index in batch], [begin[index] for index in batch])
        x = residuals(ids, [len(texts[index]) for index in batch])
        counted = real & ~sinks(x, torch.arange(ids.shape[1]).expand_as(ids), limit).cpu()
        if not bool(counted.any(1).all()):
            empty = batch[int((~counted.any(1)).nonzero()[0])]
            raise InputError(f"text {empty + 1} has no token to count; give longer texts")
        _pool_batch(out, torch.tensor(batch), x, counted, autoencoder)
        if progress is not None:
            progress(len(batch))
    return out


def _pool_batch(
    out: PooledTexts, rows: Tensor, x: Tensor, counted: Tensor, autoencoder: SparseAutoencoder
) -> None:
    mask = counted.to(x.device)[:, :, None]
    number = mask.sum(1)
    activations = autoencoder.encode(x.to(autoencoder.encoder.dtype)).float() * mask
    highest = activations.max(1)
    out.maximum[rows] = highest.values.cpu()
    out.peak[rows] = (highest.indices * (highest.values > 0)).int().cpu()
    out.mean[rows] = (activations.sum(1) / number).cpu()
    out.residual[rows] = ((x * mask).sum(1) / number).float().cpu()
    out.tokens[rows] = number[:, 0].cpu()


def _batches(texts: Sequence[Sequence[int]], tokens: int) -> Iterator[list[int]]:
    """Batches of indices of texts of similar length, longest first; each holds about `tokens` tokens with padding."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    while order:
        size = max(1, tokens // max(1, len(texts[order[0]])))
        yield order[:size]
        order = order[size:]


def _padded(texts: Sequence[Sequence[int]], begin: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Token ids `[batch, time]`, padded with 0 on the right, and a mask of the positions from each beginning on."""
    time = max(map(len, texts), default=0)
    ids = torch.zeros(len(texts), max(time, 1), dtype=torch.int64)
    counted = torch.zeros_like(ids, dtype=torch.bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text, dtype=torch.int64)
        counted[row, begin[row] : len(text)] = True
    return ids, counted
