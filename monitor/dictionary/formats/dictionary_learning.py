"""Reader for dictionary_learning (Marks, Karvonen, Mueller): `ae.pt` and `config.json`.

`dict_class` in the configuration names the kind of dictionary, and each kind has its own tensors in `ae.pt`. A
BatchTopK or Matryoshka dictionary is read as JumpReLU with its stored threshold, as dictionary_learning runs it at
inference. A TopK dictionary also stores a threshold, which its own encoder ignores, and so does this reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.dictionary.storage.matrix import Matrix
from monitor.errors import DictionaryError

WEIGHTS = "ae.pt"
CONFIG = "config.json"
MEASURED = "eval_results.json"
"""Optional file with the results of the makers' evaluation."""
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_DIRECT = ("W_enc", "b_enc", "W_dec", "b_dec")


class DictionaryLearningReader:
    """Reads the folder that one training run wrote."""

    name = "dictionary-learning"
    wants = f"{WEIGHTS} and {CONFIG}"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        return WEIGHTS in location.names and CONFIG in location.names and location.chosen in (None, WEIGHTS)

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        config_path, path = location.path(CONFIG), location.path(WEIGHTS)
        config = read_json(config_path)
        trainer = config.get("trainer")
        trainer = trainer if isinstance(trainer, dict) else {}
        kind = trainer.get("dict_class")
        if kind not in _CLASSES:
            raise DictionaryError(
                f"{config_path}: trainer.dict_class is {kind!r}, which cannot be read; these can: {', '.join(_CLASSES)}"
            )
        tensors = Tensors(path)
        matrices, parts = _CLASSES[kind](tensors)
        measured = read_json(location.path(MEASURED)) if MEASURED in location.names else {}
        return DictionaryParts(matrices, parts, _card(trainer, config, measured), (config_path, path))


Read = tuple[dict[str, Matrix], dict[str, Any]]


def _linear(tensors: Tensors, *, bias: str | None, extra: tuple[str, ...] = (), kind: str) -> Read:
    """Read two linear layers.

    The vector called `bias` is subtracted from the input and added to the output. With None, nothing is subtracted
    and the decoder's own bias is added.
    """
    own = ("decoder.bias",) if bias is None else (bias,)
    tensors.require((*_LINEAR, *own), extra, kind=kind)
    encoder = tensors.matrix("encoder.weight")
    features, width = encoder.shape
    added = tensors.vector(bias or "decoder.bias", width)
    parts = {
        "activation": Activation.RELU,
        "encoder_bias": tensors.vector("encoder.bias", features),
        "decoder_bias": added,
        "input_bias": None if bias is None else added,
    }
    decoder = tensors.matrix("decoder.weight", transposed=True, like=encoder)
    return {"encoder": encoder, "decoder": decoder}, parts


def _standard(tensors: Tensors) -> Read:
    return _linear(tensors, bias="bias", kind="an AutoEncoder")


def _new(tensors: Tensors) -> Read:
    return _linear(tensors, bias=None, kind="an AutoEncoderNew")


def _gated(tensors: Tensors) -> Read:
    names = ("decoder_bias", "encoder.weight", "r_mag", "gate_bias", "mag_bias", "decoder.weight")
    tensors.require(names, kind="a GatedAutoEncoder")
    gate = tensors.matrix("encoder.weight")
    features, width = gate.shape
    bias = tensors.vector("decoder_bias", width)
    matrices = {
        "encoder": gate.times(tensors.vector("r_mag", features).exp()),
        "decoder": tensors.matrix("decoder.weight", transposed=True, like=gate),
        "gate_encoder": gate,
    }
    return matrices, {
        "activation": Activation.GATED,
        "encoder_bias": tensors.vector("mag_bias", features),
        "gate_bias": tensors.vector("gate_bias", features),
        "decoder_bias": bias,
        "input_bias": bias,
    }


def _direct(tensors: Tensors, *, subtract: bool, kind: str, extra: tuple[str, ...] = ()) -> Read:
    """Read the matrices `W_enc` and `W_dec`, and a threshold; `subtract` says whether the input loses `b_dec` first."""
    tensors.require((*_DIRECT, "threshold"), extra, kind=kind)
    encoder = tensors.matrix("W_enc", transposed=True)
    features, width = encoder.shape
    bias = tensors.vector("b_dec", width)
    parts = {
        "activation": Activation.JUMPRELU,
        "encoder_bias": tensors.vector("b_enc", features),
        "decoder_bias": bias,
        "input_bias": bias if subtract else None,
        "threshold": tensors.per_feature("threshold", features),
    }
    return {"encoder": encoder, "decoder": tensors.matrix("W_dec", like=encoder)}, parts


def _jumprelu(tensors: Tensors) -> Read:
    matrices, parts = _direct(tensors, subtract=False, kind="a JumpReluAutoEncoder")
    return matrices, {**parts, "threshold": parts["threshold"].relu()}


def _topk(tensors: Tensors) -> Read:
    matrices, parts = _linear(tensors, bias="b_dec", extra=("k", "threshold"), kind="an AutoEncoderTopK")
    return matrices, {**parts, "activation": Activation.TOPK, "k": int(tensors.number("k"))}


def _batch_topk(tensors: Tensors) -> Read:
    matrices, parts = _linear(tensors, bias="b_dec", extra=("k", "threshold"), kind="a BatchTopKSAE")
    threshold = _inference_threshold(tensors, matrices["encoder"].shape[0])
    return matrices, {**parts, "activation": Activation.JUMPRELU, "threshold": threshold}


def _matryoshka(tensors: Tensors) -> Read:
    extra = ("k", "group_sizes")
    if tensors.plain("threshold") is None:
        _inference_threshold(tensors, 1)
    matrices, parts = _direct(tensors, subtract=True, kind="a MatryoshkaBatchTopKSAE", extra=extra)
    threshold = _inference_threshold(tensors, matrices["encoder"].shape[0])
    return matrices, {**parts, "threshold": threshold}


def _inference_threshold(tensors: Tensors, features: int) -> Tensor:
    """The threshold `[features]` that takes the place of a batch's top k at inference.

    DictionaryError where there is none, or where it is −1, which training writes until it begins to measure one.
    """
    absent = tensors.plain("threshold") is None
    threshold = torch.full((features,), -1.0) if absent else tensors.per_feature("threshold", features)
    if bool((threshold < 0).any()):
        what = "there is no `threshold`" if absent else "the threshold was never set (it is −1)"
        raise DictionaryError(
            f"{tensors.path}: {what}, so features can only be chosen as the top k of a training batch; train it beyond "
            "the step at which the threshold is first set, or store `threshold` in the file: the mean, over batches, "
            "of the smallest activation that is among a batch's top k"
        )
    return threshold


_CLASSES: dict[str, Callable[[Tensors], Read]] = {
    "AutoEncoder": _standard,
    "AutoEncoderNew": _new,
    "GatedAutoEncoder": _gated,
    "JumpReluAutoEncoder": _jumprelu,
    "AutoEncoderTopK": _topk,
    "BatchTopKSAE": _batch_topk,
    "MatryoshkaBatchTopKSAE": _matryoshka,
}


def _card(trainer: dict[str, Any], config: dict[str, Any], measured: dict[str, Any]) -> DictionaryCard:
    """The card. `submodule_name` is `resid_post_layer_8`, `mlp_out_layer_8` or the name of a module of the model."""
    named, layer = trainer.get("submodule_name"), trainer.get("layer")
    layer = layer if isinstance(layer, int) else None
    hook = str(named) if named else None
    if layer is not None and (hook is None or re.search(r"resid_post", hook)):
        hook = f"blocks.{layer}.hook_resid_post"
    buffer = config.get("buffer")
    buffer = buffer if isinstance(buffer, dict) else {}
    return DictionaryCard(
        model_name=trainer.get("lm_name"),
        hook_name=hook,
        layer=layer_of(hook),
        context_size=buffer.get("ctx_len"),
        l0=_number(measured.get("l0")),
        explained_variance=_number(measured.get("frac_variance_explained")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
