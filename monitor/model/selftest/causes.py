"""Possible causes of a failed self-test: their names, what to do about each, and direct evidence for them.

Direct evidence is what weights and cards show without a measurement, such as thresholds that are all 0.
"""

from __future__ import annotations

import enum
from typing import Any

import torch
from torch import Tensor, nn

from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.sae import Activation, SparseAutoencoder

_COARSE = 0.25
"""A weight row counts as quantised where it has fewer distinct values than this share of its length."""
_ROWS = 64
"""Maximum number of rows of a weight matrix that are examined for quantisation."""


class Cause(enum.StrEnum):
    """A possible mistake. The value is its name in messages and in the README's table."""

    LAYER = "wrong layer"
    POINT = "wrong point"
    NO_BOS = "BOS missing"
    EXTRA_BOS = "BOS not wanted"
    SCALING = "wrong scaling"
    TOPK = "TopK read as another kind"
    ACTIVATION = "wrong activation function"
    THRESHOLD = "thresholds dropped"
    ENCODER_BIAS = "encoder bias dropped"
    INPUT_BIAS = "decoder bias subtracted or not"
    DECODER_BIAS = "decoder bias dropped"
    SWAPPED = "encoder and decoder swapped"
    COARSE_DICTIONARY = "dictionary quantised"
    COARSE_MODEL = "model quantised or changed"


ADVICE = {
    Cause.LAYER: "give the right layer with --layer, or correct hook_name in the dictionary's configuration",
    Cause.POINT: "correct hook_name in the dictionary's configuration",
    Cause.NO_BOS: "use the tokenizer that the model came with; it must put BOS before a text",
    Cause.EXTRA_BOS: "the dictionary was trained without BOS; use a tokenizer without one",
    Cause.SCALING: "fold the factor of normalize_activations into the weights, or name the normalisation",
    Cause.TOPK: "say so in the configuration: architecture topk with its k",
    Cause.ACTIVATION: "correct architecture or activation function in the configuration",
    Cause.THRESHOLD: "the checkpoint needs its thresholds; convert it again with them",
    Cause.ENCODER_BIAS: "the checkpoint needs its encoder bias; convert it again with it",
    Cause.INPUT_BIAS: "correct apply_b_dec_to_input in the configuration",
    Cause.DECODER_BIAS: "the checkpoint needs its decoder bias; convert it again with it",
    Cause.SWAPPED: "encoder and decoder, or their orientation, are mixed up; convert the checkpoint again",
    Cause.COARSE_DICTIONARY: "use the dictionary's weights in float32, bfloat16 or float16",
    Cause.COARSE_MODEL: "run the model that the dictionary was made for, not quantised; or run "
    "`sae-monitor dictionary verify --replace` and accept what it measures",
}
"""What the operator should do about each cause."""


def evidence(
    sae: SparseAutoencoder, card: DictionaryCard, model: Any, layer: nn.Module, bos: int | None
) -> frozenset[Cause]:
    """Causes for which weights, cards or the tokenizer give direct evidence."""
    found = {
        Cause.THRESHOLD: sae.activation is Activation.JUMPRELU and _zero(sae.threshold),
        Cause.ENCODER_BIAS: _zero(sae.encoder_bias),
        Cause.DECODER_BIAS: _zero(sae.decoder_bias),
        Cause.NO_BOS: card.prepend_bos is True and bos is None,
        Cause.EXTRA_BOS: card.prepend_bos is False and bos is not None,
        Cause.COARSE_DICTIONARY: _coarse(sae.encoder) or _coarse(sae.decoder),
        Cause.COARSE_MODEL: _model_is_coarse(model, layer),
    }
    return frozenset(cause for cause, holds in found.items() if holds)


def _zero(tensor: Tensor | None) -> bool:
    return tensor is not None and not bool(tensor.any())


def _coarse(weights: Tensor) -> bool:
    """True where at least half of the examined rows of `weights` `[rows, width]` have few distinct values."""
    step = max(1, len(weights) // _ROWS)
    shares = [len(torch.unique(row)) / len(row) for row in weights[::step][:_ROWS]]
    return bool(shares) and sorted(shares)[len(shares) // 2] < _COARSE


def _model_is_coarse(model: Any, layer: nn.Module) -> bool:
    if getattr(model.config, "quantization_config", None) is not None:
        return True
    matrices = [weights for weights in layer.parameters() if weights.dim() == 2]
    return any(not weights.is_floating_point() or _coarse(weights.detach()) for weights in matrices)
