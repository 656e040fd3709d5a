"""Counter-experiments: undo one possible mistake in reading the dictionary's checkpoint, and measure it again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder
from monitor.model.selftest.causes import Cause
from monitor.model.selftest.expected import Expected, far
from monitor.model.selftest.measurement import Measurement, ResidualRows, measure

_GRID = tuple(2.0 ** (step / 2) for step in range(-12, 13) if step)
_FINE = tuple(2.0 ** (step / 16) for step in range(-7, 8))
"""Factors on the input that are tried: first from 1/64 to 64, then around the best of these."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One counter-experiment and its result."""

    cause: Cause
    """The mistake that was undone."""
    what: str
    """What was done, in words: "with one threshold of 1.09 for all features"."""
    measured: Measurement
    fitted: bool = False
    """True where a number was fitted to the expected values, which makes a match weaker evidence."""


def try_arithmetic(rows: ResidualRows, sae: SparseAutoencoder, expected: Expected) -> Iterator[Experiment]:
    """Undo every way in which the checkpoint may have been misread, one at a time, and measure."""
    for cause, what, other, fitted in _variants(rows, sae, expected):
        yield Experiment(cause, what, measure(rows, other), fitted)
    yield from _scales(rows, sae, expected)


Variant = tuple[Cause, str, SparseAutoencoder, bool]
"""Cause, description, changed dictionary, and whether a number in it was fitted."""


def _variants(rows: ResidualRows, sae: SparseAutoencoder, expected: Expected) -> Iterator[Variant]:
    yield Cause.SWAPPED, "with encoder and decoder exchanged", _swapped(sae), False
    if sae.input_bias is None:
        other = replace(sae, input_bias=sae.decoder_bias)
        yield Cause.INPUT_BIAS, "with the decoder bias subtracted from the input", other, False
    else:
        other = replace(sae, input_bias=None)
        yield Cause.INPUT_BIAS, "with nothing subtracted from the input", other, False
    for norm in InputNorm:
        if norm is not sae.input_norm:
            yield Cause.SCALING, f"with input normalisation {norm}", replace(sae, input_norm=norm), False
    norms = sae.decoder.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    if float(norms.max() / norms.min()) > 1.01:
        yield Cause.SCALING, "with decoder rows of length 1", replace(sae, decoder=sae.decoder / norms), False
    if sae.activation is not Activation.RELU:
        yield Cause.ACTIVATION, "as ReLU", _as(sae, Activation.RELU), False
    if expected.l0 is not None:
        yield from _sparser(rows, sae, expected.l0)
    yield Cause.DECODER_BIAS, "with the decoder bias that fits best", _with_bias(rows, sae), True


def _sparser(rows: ResidualRows, sae: SparseAutoencoder, l0: float) -> Iterator[Variant]:
    """Other activation functions and biases, fitted so that as many features are active as expected."""
    k = max(1, min(round(l0), sae.features))
    if sae.activation is not Activation.TOPK or sae.k != k:
        # The L0 of a TopK dictionary is k, or just below where fewer than k features are positive.
        fitted = abs(l0 - k) > 0.02
        other = replace(_as(sae, Activation.TOPK), k=k, rank_by_decoder_norm=False)
        yield Cause.TOPK, f"as TopK with k = {k}", other, fitted
    if sae.activation is Activation.GATED or not sae.separable:
        return
    some = rows.thinned(256).x
    pre = sae.pre_activations(sae.normalise(some)[0])
    count = max(1, min(round(l0 * len(some)), pre.numel()))
    threshold = float(_largest(pre, count).clamp_min(0))
    flat = torch.full((sae.features,), threshold)
    jump = replace(_as(sae, Activation.JUMPRELU), threshold=flat)
    yield Cause.THRESHOLD, f"with one threshold of {threshold:.3g} for all features", jump, True
    margin = pre if sae.threshold is None else pre - sae.threshold.relu()
    shift = -float(_largest(margin, count))
    moved = replace(sae, encoder_bias=sae.encoder_bias + shift)
    yield Cause.ENCODER_BIAS, f"with {shift:+.3g} on every encoder bias", moved, True


def _largest(values: Tensor, count: int) -> Tensor:
    """The `count`-th largest value in a tensor."""
    return values.flatten().topk(count, sorted=True).values[-1]


def _scales(rows: ResidualRows, sae: SparseAutoencoder, expected: Expected) -> Iterator[Experiment]:
    """Experiments with the input times a factor: √d over the mean norm, its inverse, and the best-fitting factor."""
    usual = sae.d_model**0.5 / float(rows.x.norm(dim=-1).mean())
    for factor, name in ((usual, "√d / mean norm"), (1 / usual, "mean norm / √d")):
        yield Experiment(
            Cause.SCALING, f"with the input times {factor:.3g} ({name})", measure(rows, sae, scale=factor)
        )
    best, some = 1.0, rows.thinned(192)
    for grid in (_GRID, _FINE):
        best = min(
            (best * step for step in grid), key=lambda factor: far(measure(some, sae, scale=factor), expected)
        )
    if expected.l0 is not None:
        best = _refined(rows, sae, best, expected.l0)
    what = f"with the input times {best:.3g}"
    yield Experiment(Cause.SCALING, what, measure(rows, sae, scale=best), fitted=True)


def _refined(rows: ResidualRows, sae: SparseAutoencoder, factor: float, l0: float) -> float:
    """Refine a factor over all rows by three secant steps of log L0 over log factor, close to where it began."""
    first = last = math.log(factor)
    miss = _miss(rows, sae, last, l0)
    here = last + 0.02
    for _ in range(3):
        found = _miss(rows, sae, here, l0)
        if found == miss:
            break
        step = -found * (here - last) / (found - miss)
        last, miss, here = here, found, min(max(here + step, first - 0.2), first + 0.2)
    return math.exp(here)


def _miss(rows: ResidualRows, sae: SparseAutoencoder, log_factor: float, l0: float) -> float:
    return math.log(max(measure(rows, sae, scale=math.exp(log_factor)).l0, 1e-9) / l0)


def _as(sae: SparseAutoencoder, activation: Activation) -> SparseAutoencoder:
    """The same weights with another activation function; the caller sets its k or thresholds."""
    return replace(
        sae,
        activation=activation,
        threshold=torch.zeros(sae.features) if activation is Activation.JUMPRELU else None,
        k=1 if activation is Activation.TOPK else None,
        gate_encoder=None,
        gate_bias=None,
    )


def _swapped(sae: SparseAutoencoder) -> SparseAutoencoder:
    return replace(sae, encoder=sae.decoder, decoder=sae.encoder)


def _with_bias(rows: ResidualRows, sae: SparseAutoencoder) -> SparseAutoencoder:
    some = rows.thinned(512).x
    bare = replace(sae, decoder_bias=torch.zeros_like(sae.decoder_bias), input_norm=InputNorm.NONE)
    normed, _, _ = sae.normalise(some)
    return replace(sae, decoder_bias=(normed - bare.reconstruct(normed)).mean(0))
