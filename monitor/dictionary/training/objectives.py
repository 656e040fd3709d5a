"""Loss and gradients of each objective (`Objective` states them) on one batch.

The gradients are written out by hand, at the active features of each token only. Autograd would make every
`[tokens, features]` matrix dense; tests compare each gradient with autograd in float64.

With x `[tokens, d]` the scaled input and e = x̂ − x, the gradient at x̂ is g = 2e/tokens. The gradient at an active a_i
is g·W_dec_i plus that of the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.dictionary.training import processes
from monitor.dictionary.training.network import Network
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.dictionary.training.sparsity_pattern import SparsityPattern, find_active

MARGIN, SLACK = 0.98, 0.02
"""Candidates for active features are found in low precision. The cutoff is therefore lowered, to `MARGIN` times itself
minus `SLACK`, and exact values decide among the candidates. `SLACK` suits pre-activations of standard deviation 1."""

SLOWEST = 0.01
"""BatchTopK: smallest weight of a batch's threshold in the running mean. Short runs use a larger one, to converge."""


@dataclass(frozen=True)
class BatchResult:
    """Loss, gradients and statistics of one batch."""

    loss: Tensor
    """Scalar: the objective's value, with its penalty."""
    squared_error: Tensor
    """Scalar: mean of ‖e‖² over tokens."""
    l0: Tensor
    """Scalar: mean number of active features per token."""
    error: Tensor
    """e, `[tokens, d]`."""
    fired: Tensor
    """`[features]` bool: True where the feature is active at some token of the batch."""
    gradients: dict[str, Tensor]
    """By parameter name."""


def loss_and_gradients(network: Network, x: Tensor, settings: TrainSettings, sparsity: float) -> BatchResult:
    """Loss and gradients of one batch.

    Args:
        network: the weights. BatchTopK also updates its running threshold.
        x: scaled input `[tokens, d]`.
        settings: the run's settings, `resolved()`.
        sparsity: λ at this step.
    """
    if settings.objective is Objective.PAPER:
        return _paper(network, x, settings, sparsity)
    if settings.objective is Objective.JUMPRELU:
        return _jumprelu(network, x, settings, sparsity)
    return _batchtopk(network, x, settings)


def _paper(network: Network, x: Tensor, settings: TrainSettings, sparsity: float) -> BatchResult:
    """`Objective.PAPER`."""
    pattern, values = _above(network, x, settings, network.encoder_bias.new_zeros(settings.features))
    norms = network.decoder.norm(dim=1)
    at_output, result = _reconstruct(network, x, pattern, values)
    weight = sparsity / x.shape[0]
    per_feature = pattern.per_feature(values)
    at_values = pattern.dot_products(at_output, network.decoder.detach()) + weight * norms[pattern.columns]
    gradients = _gradients(network, x, pattern, values, at_output, at_values)
    gradients["decoder"] += (weight * per_feature / norms.clamp_min(1e-8)).unsqueeze(1) * network.decoder
    loss = result.squared_error + weight * (per_feature * norms).sum()
    return replace(result, loss=loss, gradients=gradients)


def _jumprelu(network: Network, x: Tensor, settings: TrainSettings, sparsity: float) -> BatchResult:
    """`Objective.JUMPRELU`, with the straight-through gradients of the paper's equations 11 and 12.

    ∂a/∂θ ≈ −(θ/ε)·K((p − θ)/ε) and ∂1[p > θ]/∂θ ≈ −(1/ε)·K((p − θ)/ε), where the kernel K is a rectangle of width 1
    and ε the bandwidth. The logarithm of θ is trained.
    """
    threshold = network.log_threshold.detach().exp()
    width = settings.bandwidth * x.shape[1] ** 0.5 / 16
    pattern, pre = _above(network, x, settings, (threshold - width / 2).clamp_min(0))
    at_threshold = threshold[pattern.columns]
    active = pre > at_threshold
    values = pre * active
    at_output, result = _reconstruct(network, x, pattern, values)
    pulled = pattern.dot_products(at_output, network.decoder.detach())
    gradients = _gradients(network, x, pattern, values, at_output, pulled * active)
    near = ((pre - at_threshold).abs() < width / 2).to(pre.dtype) / width
    weight = sparsity / x.shape[0]
    at_log = -at_threshold * near * (at_threshold * pulled + weight)
    gradients["log_threshold"] = pattern.per_feature(at_log)
    loss = result.squared_error + sparsity * result.l0
    return replace(result, loss=loss, gradients=gradients)


def _batchtopk(network: Network, x: Tensor, settings: TrainSettings) -> BatchResult:
    """`Objective.BATCHTOPK`; the batch is that of all processes together."""
    pattern, values = _largest(network, x, settings, settings.k * x.shape[0] * processes.size())
    at_output, result = _reconstruct(network, x, pattern, values)
    at_values = pattern.dot_products(at_output, network.decoder.detach())
    gradients = _gradients(network, x, pattern, values, at_output, at_values)
    return replace(result, gradients=gradients)


def _largest(
    network: Network, x: Tensor, settings: TrainSettings, count: int
) -> tuple[SparsityPattern, Tensor]:
    """The `count` positive pre-activations of the batch with the largest p·‖W_dec‖. Updates the running threshold.

    Candidates are those above a cutoff a little below the last batch's threshold. Where they are too few, the cutoff
    is lowered until they suffice.
    """
    norms = network.decoder.detach().norm(dim=1).clamp_min(1e-8)
    guess = 0.93 * network.last_threshold
    while True:
        candidates, values = _candidates(network, x, settings, guess / norms)
        ranks = values * norms[candidates.columns]
        smallest = processes.kth_largest(ranks, count)
        if guess == 0 or float(smallest) > guess:
            break
        guess = guess / 2 if guess > 1e-3 else 0.0
    first = float(network.threshold) == 0
    network.last_threshold = float(smallest)
    rate = 1.0 if first else min(1.0, max(SLOWEST, 20 / settings.steps))
    network.threshold.lerp_(smallest.to(network.threshold.dtype), rate)
    return candidates.select(ranks >= smallest.clamp_min(torch.finfo(values.dtype).tiny), values)


def _above(
    network: Network, x: Tensor, settings: TrainSettings, cutoff: Tensor
) -> tuple[SparsityPattern, Tensor]:
    """The entries with p > cutoff, and their exact p; `cutoff` is `[features]`."""
    pattern, values = _candidates(network, x, settings, cutoff)
    return pattern.select(values > cutoff[pattern.columns], values)


def _candidates(
    network: Network, x: Tensor, settings: TrainSettings, cutoff: Tensor
) -> tuple[SparsityPattern, Tensor]:
    """All entries with p > cutoff and some just below it, and their exact p; `cutoff` is `[features]`."""
    low = getattr(torch, settings.precision)
    encoder, bias = network.encoder.detach(), network.encoder_bias.detach()
    pattern = find_active(x.to(low), encoder.to(low), bias.to(low), (cutoff * MARGIN - SLACK).clamp_min(0))
    return pattern, pattern.dot_products(x, encoder, exact=True).add_(bias[pattern.columns])


def _reconstruct(
    network: Network, x: Tensor, pattern: SparsityPattern, values: Tensor
) -> tuple[Tensor, BatchResult]:
    """The gradient at x̂ `[tokens, d]`, and a result without penalty and without gradients."""
    error = pattern.sum_over_features(values, network.decoder.detach()) + network.decoder_bias.detach() - x
    tokens = x.shape[0]
    active = values > 0
    fired = torch.zeros(pattern.features, dtype=torch.bool, device=x.device)
    fired[pattern.columns[active]] = True
    squared = error.square().sum() / tokens
    return error * (2 / tokens), BatchResult(squared, squared, active.sum() / tokens, error, fired, {})


def _gradients(
    network: Network, x: Tensor, pattern: SparsityPattern, values: Tensor, at_output: Tensor, at_pre: Tensor
) -> dict[str, Tensor]:
    """Gradients of the weights, from those at x̂ `[tokens, d]` and at the pre-activations of the entries `[count]`."""
    return {
        "decoder": pattern.sum_over_tokens(values, at_output),
        "decoder_bias": at_output.sum(0),
        "encoder": pattern.sum_over_tokens(at_pre, x),
        "encoder_bias": pattern.per_feature(at_pre),
    }
