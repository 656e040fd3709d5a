"""A small dictionary and a stand-in for a model: every token id has one residual."""

from __future__ import annotations

import torch
from torch import Tensor

from monitor.dictionary.packed_text import PackedText
from monitor.dictionary.sae import Activation, SparseAutoencoder

FEATURES, WIDTH, VOCABULARY, BOS = 12, 6, 40, 1


def small_autoencoder(seed: int = 0) -> SparseAutoencoder:
    draw = torch.Generator().manual_seed(seed)
    return SparseAutoencoder(
        activation=Activation.JUMPRELU,
        encoder=torch.randn(FEATURES, WIDTH, generator=draw),
        encoder_bias=torch.randn(FEATURES, generator=draw) * 0.1,
        decoder=torch.randn(FEATURES, WIDTH, generator=draw),
        decoder_bias=torch.zeros(WIDTH),
        threshold=torch.full((FEATURES,), 0.8),
    )


def residuals_of(ids: Tensor, lengths: object = None) -> Tensor:
    """`[batch, time, WIDTH]`: the token's own vector, moved a little by position and by the tokens before it."""
    draw = torch.Generator().manual_seed(7)
    table = torch.randn(VOCABULARY, WIDTH, generator=draw)
    drift = torch.randn(512, WIDTH, generator=draw) * 0.2
    past = table[ids].cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None]
    return table[ids] + drift[: ids.shape[1]] + 0.3 * past


def small_rows(rows: int, length: int, seed: int = 3, bos_share: float = 0.1) -> list[PackedText]:
    """Rows in which documents begin with BOS, and may go on from row to row."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, VOCABULARY, (rows, length), generator=draw)
    ids[torch.rand(rows, length, generator=draw) < bos_share] = BOS
    documents = (ids == BOS).flatten().cumsum(0).view_as(ids)
    return [PackedText(*row) for row in zip(ids, documents, strict=True)]
