"""dictionary_learning (Marks, Karvonen, Mueller): `ae.pt` and `config.json`, whose `dict_class` says what it is.

A pickled state dict per class. TopK keeps a threshold too, which its own encode does not use; BatchTopK and Matryoshka
are read with theirs, as at inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from monitor.dictionary.formats.card import Card, layer_of
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.place import Place
from monitor.dictionary.formats.reader import Found
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.dictionary.storage.matrix import Matrix
from monitor.errors import DictionaryError

WEIGHTS = "ae.pt"
CONFIG = "config.json"
MEASURED = "eval_results.json"
"""What its makers measured; may be missing."""
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")
_DIRECT = ("W_enc", "b_enc", "W_dec", "b_dec")


class DictionaryLearningReader:
    """Reads one trainer's folder."""

    name = "dictionary-learning"
    wants = f"{WEIGHTS} and {CONFIG}"

    def detects(self, place: Place) -> bool:
        """See `Reader`."""
        return WEIGHTS in place.names and CONFIG in place.names and place.chosen in (None, WEIGHTS)

    def read(self, place: Place) -> Found:
        """See `Reader`."""
        config_path, path = place.path(CONFIG), place.path(WEIGHTS)
        config = read_json(config_path)
        trainer = config.get("trainer")
        trainer = trainer if isinstance(trainer, dict) else {}
        kind = trainer.get("dict_class")
        if kind not in _CLASSES:
            raise DictionaryError(
                f"{config_path}: trainer.dict_class is {kind!r}, which is not one of {', '.join(_CLASSES)}"
            )
        tensors = Tensors(path)
        matrices, parts = _CLASSES[kind](tensors)
        measured = read_json(place.path(MEASURED)) if MEASURED in place.names else {}
        return Found(matrices, parts, _card(trainer, config, measured), (config_path, path))


Read = tuple[dict[str, Matrix], dict[str, Any]]


def _linear(tensors: Tensors, *, bias: str | None, extra: tuple[str, ...] = (), kind: str) -> Read:
    """Two linear layers; `bias` is subtracted before and added after, or None where the decoder has its own."""
    own = ("decoder.bias",) if bias is None else (bias,)
    tensors.need((*_LINEAR, *own), extra, kind=kind)
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
    tensors.need(names, kind="a GatedAutoEncoder")
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
    """Matrices of one's own, with a threshold."""
    tensors.need((*_DIRECT, "threshold"), extra, kind=kind)
    encoder = tensors.matrix("W_enc", transposed=True)
    features, width = encoder.shape
    bias = tensors.vector("b_dec", width)
    parts = {
        "activation": Activation.JUMPRELU,
        "encoder_bias": tensors.vector("b_enc", features),
        "decoder_bias": bias,
        "input_bias": bias if subtract else None,
        "threshold": tensors.spread("threshold", features),
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
    threshold = tensors.spread("threshold", matrices["encoder"].shape[0])
    return matrices, {**parts, "activation": Activation.JUMPRELU, "threshold": _set(threshold, tensors)}


def _matryoshka(tensors: Tensors) -> Read:
    extra = ("k", "group_sizes")
    matrices, parts = _direct(tensors, subtract=True, kind="a MatryoshkaBatchTopKSAE", extra=extra)
    return matrices, {**parts, "threshold": _set(parts["threshold"], tensors)}


def _set(threshold: Any, tensors: Tensors) -> Any:
    """A threshold of −1 was never set: the dictionary would run as a plain ReLU."""
    if bool((threshold < 0).any()):
        raise DictionaryError(
            f"{tensors.path}: the threshold was never set (it is −1), so this dictionary only knows how to take the "
            "top k of a training batch; train it past its threshold's start, or set the threshold"
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


def _card(trainer: dict[str, Any], config: dict[str, Any], measured: dict[str, Any]) -> Card:
    """Places are called `resid_post_layer_8`, `mlp_out_layer_8` or like a module of the model."""
    place, layer = trainer.get("submodule_name"), trainer.get("layer")
    layer = layer if isinstance(layer, int) else None
    hook = str(place) if place else None
    if layer is not None and (hook is None or re.search(r"resid_post", hook)):
        hook = f"blocks.{layer}.hook_resid_post"
    buffer = config.get("buffer")
    buffer = buffer if isinstance(buffer, dict) else {}
    return Card(
        model_name=trainer.get("lm_name"),
        hook_name=hook,
        layer=layer_of(hook),
        context_size=buffer.get("ctx_len"),
        l0=_number(measured.get("l0")),
        explained_variance=_number(measured.get("frac_variance_explained")),
    )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
