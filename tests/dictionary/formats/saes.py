"""Small random dictionaries for tests; numbers are fixed by the seed."""

from __future__ import annotations

import torch

from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder

WIDTH, FEATURES = 12, 40


def make(
    activation: Activation, *, subtract: bool = False, norm: InputNorm = InputNorm.NONE
) -> SparseAutoencoder:
    random = torch.Generator().manual_seed(7)
    bias = 0.1 * torch.randn(WIDTH, generator=random)
    return SparseAutoencoder(
        activation=activation,
        encoder=torch.randn(FEATURES, WIDTH, generator=random),
        encoder_bias=0.3 * torch.randn(FEATURES, generator=random),
        decoder=torch.randn(FEATURES, WIDTH, generator=random),
        decoder_bias=bias,
        threshold=torch.rand(FEATURES, generator=random) if activation is Activation.JUMPRELU else None,
        k=5 if activation is Activation.TOPK else None,
        gate_encoder=torch.randn(FEATURES, WIDTH, generator=random)
        if activation is Activation.GATED
        else None,
        gate_bias=torch.randn(FEATURES, generator=random) if activation is Activation.GATED else None,
        input_bias=bias if subtract else None,
        input_norm=norm,
    )


def inputs(rows: int = 64) -> torch.Tensor:
    return 2 * torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(11)) + 0.5
