"""What a token's whole residual says, beside its features: its size, and what no feature explains of it.

Knows arithmetic on residuals. Does not know models, policies or thresholds.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder


def residual_norm(x: Tensor) -> Tensor:
    """‖x‖₂ / √d_model `[...]` of residuals `[..., d_model]`."""
    return torch.as_tensor(x.norm(dim=-1) / x.shape[-1] ** 0.5)


def reconstruction_error(autoencoder: SparseAutoencoder, x: Tensor) -> Tensor:
    """‖x − x̂‖² / ‖x − x̂₀‖² `[...]` of residuals `[..., d_model]`, x̂₀ the reconstruction without any feature.

    0 where the features explain everything, 1 where they explain nothing, above 1 where they make it worse. As the
    fraction of variance unexplained, but of one token, and around the decoder's bias instead of a mean.
    """
    _, shift, scale = autoencoder.normalise(x)
    nothing = autoencoder.decoder_bias if scale is None else autoencoder.decoder_bias * scale
    nothing = nothing if shift is None else nothing + shift
    missed = (x - autoencoder.reconstruct(x)).square().sum(-1)
    return missed / (x - nothing).square().sum(-1).clamp_min(torch.finfo(x.dtype).tiny)
