"""Features that no longer fire, and what brings them back.

Knows who is dead and two remedies: an auxiliary loss (JumpReLU, BatchTopK), and resampling for those that have no
gradient at all (ReLU's dead, and others that the auxiliary loss could not wake). Does not know the main objective.
"""

from __future__ import annotations

import torch
from torch import Tensor

from monitor.dictionary.training import processes
from monitor.dictionary.training.network import Network
from monitor.dictionary.training.settings import Objective, TrainSettings

AUXILIARY = 1 / 32
"""Weight of the auxiliary loss (Gao et al., 2024, section A.2)."""

ROWS = 4
"""The auxiliary loss looks at every fourth token of a batch: it needs a direction, not precision."""

LARGEST_SHARE = 8
"""At most one in so many features is revived at a step."""


class Idle:
    """Tokens since each feature last fired, over all processes."""

    def __init__(self, features: int, device: torch.device | str = "cpu") -> None:
        self.tokens = torch.zeros(features, dtype=torch.int64, device=device)

    def update(self, fired: Tensor, tokens: int) -> None:
        """Count a batch: `fired` `[features]` bool of this process, `tokens` of all."""
        everywhere = processes.largest(fired.to(torch.uint8)).bool()
        self.tokens = torch.where(everywhere, 0, self.tokens + tokens)

    def dead(self, after: int) -> Tensor:
        """`[features]` bool: no activation within the last `after` tokens."""
        return self.tokens >= after


def auxiliary_gradients(
    network: Network, x: Tensor, error: Tensor, dead: Tensor, seed: int
) -> dict[str, Tensor]:
    """Gradients of the loss that lets dead features model what the living leave over.

    L = (d/32)·mean‖ê + e‖² / mean‖e‖², where ê = relu(p_dead)·W_dec_dead over the d/2 largest p of each token
    (Gao et al., 2024, section A.2; e = x̂ − x here, hence the plus).

    Args:
        network: weights.
        x: `[tokens, d]`, scaled.
        error: `[tokens, d]`.
        dead: `[features]` bool.
        seed: decides which are looked at where many are dead; the same on every process.

    Returns:
        Gradients by parameter name, in full shape and zero at living features; empty where none is dead.
    """
    chosen = _chosen(dead, seed)
    if chosen.numel() == 0:
        return {}
    x, error = x[::ROWS], error[::ROWS]
    encoder, decoder = network.encoder.detach()[chosen], network.decoder.detach()[chosen]
    a = _strongest((x @ encoder.T + network.encoder_bias.detach()[chosen]).relu(), x.shape[1] // 2)
    mean_square = processes.mean(error.square().sum() / x.shape[0]).clamp_min(1e-12)
    weight = AUXILIARY * x.shape[1] / mean_square
    at_output = (a @ decoder + error) * (2 * weight / x.shape[0])
    at_a = (at_output @ decoder.T) * (a > 0)
    parts = {"encoder": at_a.T @ x, "encoder_bias": at_a.sum(0), "decoder": a.T @ at_output}
    return {name: _placed(part, chosen, dead.shape[0]) for name, part in parts.items()}


def _chosen(dead: Tensor, seed: int) -> Tensor:
    found = dead.nonzero().squeeze(1)
    most = max(1, dead.shape[0] // LARGEST_SHARE)
    if found.numel() <= most:
        return found
    random = torch.Generator().manual_seed(seed)
    return found[torch.randperm(found.numel(), generator=random)[:most].to(found.device)]


def _strongest(a: Tensor, k: int) -> Tensor:
    """All but the k largest of each row set to zero."""
    if a.shape[1] <= k:
        return a
    limit = a.topk(k, dim=1).values[:, -1:]
    return a * (a >= limit)


def _placed(part: Tensor, rows: Tensor, size: int) -> Tensor:
    out = part.new_zeros(size, *part.shape[1:])
    out[rows] = part
    return out


@torch.no_grad()
def resample(network: Network, x: Tensor, error: Tensor, dead: Tensor, seed: int) -> Tensor:
    """Point dead features at badly reconstructed inputs of this batch; returns which, `[resampled]`.

    Inputs are drawn with probability proportional to ‖e‖⁴; a feature gets the direction that was missing,
    the norms of the living on average, and no bias against the mean (Bricken et al., 2023, "neuron resampling",
    with the residual instead of the input). ReLU's encoder begins at 0.2 of the norm, as there; the others must
    clear a threshold.
    """
    chosen = _chosen(dead, seed)
    alive = ~dead
    if chosen.numel() == 0 or not bool(alive.any()):
        return chosen[:0]
    chosen = chosen[: x.shape[0]]
    share = 0.2 if network.objective is Objective.PAPER else 1.0
    random = torch.Generator().manual_seed(seed)
    weights = error.double().square().sum(1).square().cpu()
    rows = torch.multinomial(weights, chosen.numel(), generator=random).to(x.device)
    missing = processes.from_first(-error[rows])
    direction = missing / missing.norm(dim=1, keepdim=True).clamp_min(1e-8)
    network.decoder[chosen] = direction * network.decoder[alive].norm(dim=1).mean()
    network.encoder[chosen] = direction * network.encoder[alive].norm(dim=1).mean() * share
    network.encoder_bias[chosen] = -network.encoder[chosen] @ network.decoder_bias
    return chosen


def resamples(settings: TrainSettings, step: int) -> bool:
    """True at the steps that end a stretch of `dead_after` tokens, in the first six tenths of a run."""
    assert settings.dead_after is not None
    stretch = max(1, settings.dead_after // settings.batch)
    return (step + 1) % stretch == 0 and step < 0.6 * settings.steps
