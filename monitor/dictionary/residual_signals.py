"""Numbers about whole residuals, and the rule that says on which tokens a dictionary is not used at all.

The first token of a text is an attention sink, and so is any token whose residual is many times as long as usual.
Dictionaries are not trained on sinks, and what they read there means nothing. Training, measuring, describing, fitting,
rules and clamps leave out the same tokens, because all of them ask `sinks`.

`residual_norm` and `reconstruction_error` are anomaly signals: one number for each token, computed from its whole
residual. Policies can read them instead of features.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monitor.dictionary.sae import SparseAutoencoder

SINK_FACTOR = 10.0
"""A residual this many times as long as the median one is a sink's."""


def sinks(x: Tensor, positions: Tensor, limit: float) -> Tensor:
    """`[...]` bool: True where a token is an attention sink, which no dictionary reads or edits.

    A row that holds NaN or infinity is no sink, unless it is the first: it must not be passed over in silence.

    Args:
        x: residuals `[..., d_model]` before any clamp.
        positions: `[...]` position of each token in its text, counted from 0.
        limit: the pair's norm limit, in units of the residual's norm; see `norm_limit`.
    """
    return (positions.to(x.device) == 0) | outlying(x, limit)


def outlying(x: Tensor, limit: float) -> Tensor:
    """`[...]` bool: True where the norm of a residual `[..., d_model]` is finite and above the pair's limit."""
    dtype = torch.float64 if x.dtype is torch.float64 else torch.float32
    norm = torch.linalg.vector_norm(x, dim=-1, dtype=dtype)
    # A comparison with infinity on both sides keeps rows that are not finite, and no limit leaves out nothing.
    return torch.logical_and(norm > limit, norm < torch.inf)


def norm_limit(x: Tensor, positions: Tensor) -> float:
    """The norm above which a residual is a sink's: ten times the median, to two significant digits.

    It is rounded so that machines and number types which compute slightly different medians come to the same limit. It
    is infinite where no residual is finite.

    Args:
        x: residuals `[..., d_model]` of ordinary texts.
        positions: `[...]` position of each token in its text; first tokens do not count.
    """
    norms = torch.linalg.vector_norm(x.float(), dim=-1)[(positions > 0).to(x.device)]
    norms = norms[norms.isfinite()]
    if not len(norms):
        return float("inf")
    return float(f"{SINK_FACTOR * float(norms.median()):.2g}")


def residual_norm(x: Tensor) -> Tensor:
    """‖x‖₂ / √d_model `[...]` of residuals `[..., d_model]`."""
    return torch.as_tensor(x.norm(dim=-1) / x.shape[-1] ** 0.5)


def reconstruction_error(autoencoder: SparseAutoencoder, x: Tensor) -> Tensor:
    """‖x − x̂‖² / ‖x − x̂₀‖² `[...]` of residuals `[..., d_model]`; x̂₀ is the reconstruction without any feature.

    It is 0 for a perfect reconstruction, 1 for one that is no better than x̂₀, and above 1 for one that is worse. It is
    the fraction of variance unexplained (FVU) of a single token, with x̂₀ in the place of the mean residual.
    """
    _, shift, scale = autoencoder.normalise(x)
    nothing = autoencoder.decoder_bias if scale is None else autoencoder.decoder_bias * scale
    nothing = nothing if shift is None else nothing + shift
    missed = (x - autoencoder.reconstruct(x)).square().sum(-1)
    return missed / (x - nothing).square().sum(-1).clamp_min(torch.finfo(x.dtype).tiny)
