"""Loss and gradients of each objective on one batch, written out by hand over the active places.

Knows the three objectives' calculus. Does not know optimisers, dead features or data. Gradients by hand because
autograd would make every `[tokens, features]` matrix dense; tests compare each with autograd in float64.

For all: x is `[tokens, d]` scaled to norm √d on average, e = x̂ − x, g = 2e/tokens is the gradient at x̂, and the
gradient at an active a_i is g·W_dec_i plus that of the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.dictionary.training import processes
from monitor.dictionary.training.network import Network
from monitor.dictionary.training.settings import Objective, TrainSettings
from monitor.dictionary.training.sparse_ops import Places, scan

MARGIN, SLACK = 0.98, 0.02
"""The scan is in low precision: it looks this much lower than it must (a share, and an amount for inputs whose
pre-activations have deviation 1), and exact values decide."""

SLOWEST = 0.01
"""Of each batch's threshold in the running one; more in runs of few steps, which must still converge."""


@dataclass(frozen=True)
class Outcome:
    """What a batch gives."""

    loss: Tensor
    """Scalar: the objective's value, penalty included."""
    squared_error: Tensor
    """Scalar: mean ‖e‖² over tokens."""
    l0: Tensor
    """Scalar: mean number of active features at a token."""
    error: Tensor
    """`[tokens, d]`: x̂ − x."""
    fired: Tensor
    """`[features]` bool: active anywhere in the batch."""
    gradients: dict[str, Tensor]
    """By parameter name."""


def evaluate(network: Network, x: Tensor, settings: TrainSettings, sparsity: float) -> Outcome:
    """Loss and gradients of a batch `[tokens, d]`.

    Args:
        network: weights; BatchTopK also moves its running threshold.
        x: scaled input.
        settings: `resolved()`.
        sparsity: λ at this step.
    """
    if settings.objective is Objective.PAPER:
        return _paper(network, x, settings, sparsity)
    if settings.objective is Objective.JUMPRELU:
        return _jumprelu(network, x, settings, sparsity)
    return _batchtopk(network, x, settings)


def _paper(network: Network, x: Tensor, settings: TrainSettings, sparsity: float) -> Outcome:
    """mean(‖e‖² + λ·Σ a_i‖W_dec_i‖), a = relu(p)."""
    places, values = _above(network, x, settings, network.encoder_bias.new_zeros(settings.features))
    norms = network.decoder.norm(dim=1)
    at_output, outcome = _reconstruct(network, x, places, values)
    weight = sparsity / x.shape[0]
    per_feature = places.per_feature(values)
    at_values = places.products(at_output, network.decoder.detach()) + weight * norms[places.columns]
    gradients = _gradients(network, x, places, values, at_output, at_values)
    gradients["decoder"] += (weight * per_feature / norms.clamp_min(1e-8)).unsqueeze(1) * network.decoder
    loss = outcome.squared_error + weight * (per_feature * norms).sum()
    return replace(outcome, loss=loss, gradients=gradients)


def _jumprelu(network: Network, x: Tensor, settings: TrainSettings, sparsity: float) -> Outcome:
    """mean(‖e‖² + λ·‖a‖₀), a = p·1[p > θ]; equations 11 and 12 of the paper with a rectangle of width ε.

    ∂a/∂θ ≈ −(θ/ε)·K((p − θ)/ε) and ∂1[p > θ]/∂θ ≈ −(1/ε)·K((p − θ)/ε); θ is trained as its logarithm.
    """
    threshold = network.log_threshold.detach().exp()
    width = settings.bandwidth * x.shape[1] ** 0.5 / 16
    places, pre = _above(network, x, settings, (threshold - width / 2).clamp_min(0))
    at_threshold = threshold[places.columns]
    active = pre > at_threshold
    values = pre * active
    at_output, outcome = _reconstruct(network, x, places, values)
    pulled = places.products(at_output, network.decoder.detach())
    gradients = _gradients(network, x, places, values, at_output, pulled * active)
    near = ((pre - at_threshold).abs() < width / 2).to(pre.dtype) / width
    weight = sparsity / x.shape[0]
    at_log = -at_threshold * near * (at_threshold * pulled + weight)
    gradients["log_threshold"] = places.per_feature(at_log)
    loss = outcome.squared_error + sparsity * outcome.l0
    return replace(outcome, loss=loss, gradients=gradients)


def _batchtopk(network: Network, x: Tensor, settings: TrainSettings) -> Outcome:
    """mean(‖e‖²), a = relu(p) at the k·tokens largest of the whole batch (over all processes)."""
    places, values = _largest(network, x, settings, settings.k * x.shape[0] * processes.size())
    at_output, outcome = _reconstruct(network, x, places, values)
    at_values = places.products(at_output, network.decoder.detach())
    gradients = _gradients(network, x, places, values, at_output, at_values)
    return replace(outcome, gradients=gradients)


def _largest(network: Network, x: Tensor, settings: TrainSettings, count: int) -> tuple[Places, Tensor]:
    """The `count` positive pre-activations of the batch with the largest p·‖W_dec‖; moves the running threshold.

    Scans for candidates a little below the threshold of the last batch, and again lower where that was too high.
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
    return candidates.where(ranks >= smallest.clamp_min(torch.finfo(values.dtype).tiny), values)


def _above(network: Network, x: Tensor, settings: TrainSettings, cutoff: Tensor) -> tuple[Places, Tensor]:
    """Places with p > cutoff, and the exact p there."""
    places, values = _candidates(network, x, settings, cutoff)
    return places.where(values > cutoff[places.columns], values)


def _candidates(
    network: Network, x: Tensor, settings: TrainSettings, cutoff: Tensor
) -> tuple[Places, Tensor]:
    """All places with p > cutoff and some just below it, and the exact p there."""
    low = getattr(torch, settings.precision)
    encoder, bias = network.encoder.detach(), network.encoder_bias.detach()
    places = scan(x.to(low), encoder.to(low), bias.to(low), (cutoff * MARGIN - SLACK).clamp_min(0))
    return places, places.products(x, encoder, exact=True).add_(bias[places.columns])


def _reconstruct(network: Network, x: Tensor, places: Places, values: Tensor) -> tuple[Tensor, Outcome]:
    """Gradient at x̂, and what is known before the other gradients are."""
    error = places.combine(values, network.decoder.detach()) + network.decoder_bias.detach() - x
    tokens = x.shape[0]
    active = values > 0
    fired = torch.zeros(places.features, dtype=torch.bool, device=x.device)
    fired[places.columns[active]] = True
    squared = error.square().sum() / tokens
    return error * (2 / tokens), Outcome(squared, squared, active.sum() / tokens, error, fired, {})


def _gradients(
    network: Network, x: Tensor, places: Places, values: Tensor, at_output: Tensor, at_pre: Tensor
) -> dict[str, Tensor]:
    """From the gradients at x̂ `[tokens, d]` and at the pre-activations of the places `[count]`."""
    return {
        "decoder": places.spread(values, at_output),
        "decoder_bias": at_output.sum(0),
        "encoder": places.spread(at_pre, x),
        "encoder_bias": places.per_feature(at_pre),
    }
