"""Dead features, which no longer fire during training, and the two methods that revive them.

The first is an auxiliary loss, which JumpReLU and BatchTopK use. The second is resampling, which sets a dead feature's
weights anew. ReLU uses resampling alone, since its dead features have no gradient. JumpReLU and BatchTopK resample the
features that have stayed dead for twice `dead_after` tokens in spite of the auxiliary loss.
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
"""The auxiliary loss is computed on every fourth token of a batch, which is precise enough."""

LARGEST_SHARE = 8
"""One step resamples, or gives an auxiliary gradient to, at most one in this many features."""


class IdleTokens:
    """Number of tokens since each feature last fired, over all processes."""

    def __init__(self, features: int, device: torch.device | str = "cpu") -> None:
        self.tokens = torch.zeros(features, dtype=torch.int64, device=device)

    def update(self, fired: Tensor, tokens: int) -> None:
        """Count a batch.

        Args:
            fired: `[features]` bool, True where the feature fired in this process's part of the batch.
            tokens: number of tokens in the batch, over all processes.
        """
        everywhere = processes.largest(fired.to(torch.uint8)).bool()
        self.tokens = torch.where(everywhere, 0, self.tokens + tokens)

    def dead(self, after: int) -> Tensor:
        """`[features]` bool: True where the feature has not fired for `after` tokens."""
        return self.tokens >= after


def auxiliary_gradients(
    network: Network, x: Tensor, error: Tensor, dead: Tensor, seed: int
) -> dict[str, Tensor]:
    """Gradients of the auxiliary loss, with which dead features model the reconstruction error of the others.

    L = (d/32)·mean‖ê + e‖² / mean‖e‖², where ê = relu(p_dead)·W_dec_dead over the d/2 largest p of each token
    (Gao et al., 2024, section A.2). The sign before e is a plus because e = x̂ − x here.

    Args:
        network: the weights.
        x: scaled input `[tokens, d]`.
        error: e, `[tokens, d]`.
        dead: `[features]` bool.
        seed: decides which features are taken where very many are dead. It must be the same on every process.

    Returns:
        Gradients by parameter name, of the parameter's full shape and zero at features that are not dead; empty
        where no feature is dead.
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
    return {name: _scattered(part, chosen, dead.shape[0]) for name, part in parts.items()}


def _chosen(dead: Tensor, seed: int) -> Tensor:
    found = dead.nonzero().squeeze(1)
    most = max(1, dead.shape[0] // LARGEST_SHARE)
    if found.numel() <= most:
        return found
    random = torch.Generator().manual_seed(seed)
    return found[torch.randperm(found.numel(), generator=random)[:most].to(found.device)]


def _strongest(a: Tensor, k: int) -> Tensor:
    """`a` with all but the k largest values of each row set to zero."""
    if a.shape[1] <= k:
        return a
    limit = a.topk(k, dim=1).values[:, -1:]
    return a * (a >= limit)


def _scattered(part: Tensor, rows: Tensor, size: int) -> Tensor:
    """Zeros with `size` rows, of which `rows` are set to `part`."""
    out = part.new_zeros(size, *part.shape[1:])
    out[rows] = part
    return out


@torch.no_grad()
def resample(network: Network, x: Tensor, error: Tensor, dead: Tensor, seed: int) -> Tensor:
    """Set the weights of dead features anew, from inputs `x` `[tokens, d]` that are reconstructed badly.

    This is the "neuron resampling" of Bricken et al. (2023), with the reconstruction error in place of the input. For
    each feature an input is drawn with a probability proportional to ‖e‖⁴. The feature's decoder and encoder rows get
    the direction of −e, with the mean norm of the rows of features that are not dead; its bias is set so that the
    mean input gives 0. ReLU's encoder rows get 0.2 of that norm, as in the paper; those of the other objectives get
    all of it, since their pre-activations must exceed a threshold.

    Returns:
        Indices of the features that were resampled, `[resampled]`.
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
    missing = processes.broadcast(-error[rows])
    direction = missing / missing.norm(dim=1, keepdim=True).clamp_min(1e-8)
    network.decoder[chosen] = direction * network.decoder[alive].norm(dim=1).mean()
    network.encoder[chosen] = direction * network.encoder[alive].norm(dim=1).mean() * share
    network.encoder_bias[chosen] = -network.encoder[chosen] @ network.decoder_bias
    return chosen


def resamples(settings: TrainSettings, step: int) -> bool:
    """True at the steps that resample: once in every `dead_after` tokens, in the first 60 % of a run."""
    assert settings.dead_after is not None
    stretch = max(1, settings.dead_after // settings.batch)
    return (step + 1) % stretch == 0 and step < 0.6 * settings.steps
