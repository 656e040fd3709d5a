"""The weights of a dictionary while it is trained, and what they become at the end.

Knows how weights begin and how the input scale and decoder norms are folded into them. Does not know gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monitor.dictionary.sae import Activation, SparseAutoencoder
from monitor.dictionary.training.settings import Objective, TrainSettings

START_NORM = 0.3
"""First norm of rows whose norms are free: reconstruction starts near the mean instead of overshooting, and a
step turns a row further. Against 1, it lowered the error by 15 % at equal tokens, with fewer dead features."""

START_THRESHOLD = 0.5
"""JumpReLU: first threshold; a random unit direction's pre-activation has deviation 1 around the mean input."""


class Network(nn.Module):
    """`p = x·W_encᵀ + b_enc`, `x̂ = a·W_dec + b_dec`, on inputs scaled to norm √d on average.

    Rows are features. No decoder bias is subtracted from the input: the encoder's bias can hold it.
    """

    def __init__(self, settings: TrainSettings, d_model: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.objective = settings.objective
        random = torch.Generator().manual_seed(settings.seed)
        directions = torch.randn(settings.features, d_model, generator=random).to(dtype)
        directions *= (START_NORM if self.free_norms else 1.0) / directions.norm(dim=1, keepdim=True)
        self.decoder = nn.Parameter(directions.clone())
        self.encoder = nn.Parameter(directions.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(settings.features, dtype=dtype))
        self.decoder_bias = nn.Parameter(torch.zeros(d_model, dtype=dtype))
        if self.objective is Objective.JUMPRELU:
            start = torch.full((settings.features,), START_THRESHOLD, dtype=dtype)
            self.log_threshold = nn.Parameter(start.log())
        self.register_buffer("threshold", torch.zeros((), dtype=dtype))
        self.threshold: Tensor
        """BatchTopK: running mean of the smallest activation times decoder norm that a batch keeps."""
        self.last_threshold = 0.0
        """BatchTopK: that of the last batch; where the next search begins, no part of its result."""

    @property
    def free_norms(self) -> bool:
        """True where the objective sees a feature's activation times its decoder norm; else rows have norm 1."""
        return self.objective is not Objective.JUMPRELU

    @torch.no_grad()
    def begin(self, mean: Tensor) -> None:
        """Start around the mean input `[d_model]`: the decoder gives it back, the encoder does not see it."""
        self.decoder_bias.copy_(mean)
        self.encoder_bias.copy_(-self.encoder @ mean)

    @torch.no_grad()
    def constrain(self) -> None:
        """Bring decoder rows back to norm 1, after a step."""
        if not self.free_norms:
            self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-8))

    @torch.no_grad()
    def project_gradient(self) -> None:
        """Take out of the decoder's gradient what only changes norms that are fixed."""
        if not self.free_norms and self.decoder.grad is not None:
            along = (self.decoder.grad * self.decoder).sum(1, keepdim=True)
            self.decoder.grad.sub_(along * self.decoder)

    @torch.no_grad()
    def thresholds(self) -> Tensor | None:
        """`[features]` thresholds of the pre-activations; None for ReLU."""
        if self.objective is Objective.PAPER:
            return None
        if self.objective is Objective.JUMPRELU:
            return self.log_threshold.exp()
        norms: Tensor = self.decoder.norm(dim=1).clamp_min(1e-8)
        return self.threshold / norms

    @torch.no_grad()
    def folded(self, scale: float) -> SparseAutoencoder:
        """The dictionary for raw inputs x, where training saw s·x; decoder rows get norm 1.

        With norms n, activations become a·n/s: `W_enc·n`, `b_enc·n/s`, `θ·n/s`, `W_dec/n`, `b_dec/s`. Exact.
        """
        norms = self.decoder.norm(dim=1).clamp_min(1e-8)
        threshold = self.thresholds()
        return SparseAutoencoder(
            activation=Activation.RELU if threshold is None else Activation.JUMPRELU,
            encoder=(self.encoder * norms.unsqueeze(1)).clone(),
            encoder_bias=self.encoder_bias * norms / scale,
            decoder=self.decoder / norms.unsqueeze(1),
            decoder_bias=self.decoder_bias / scale,
            threshold=None if threshold is None else threshold * norms / scale,
        )
