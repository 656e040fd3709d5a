"""Reader for SAELens folders: `cfg.json` and `sae_weights.safetensors`.

`saelens_config` interprets `cfg.json`; here the tensors of each architecture are read. An input scale and
decoder-norm ranking are folded into the weights, which changes the units of activations and nothing else.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.saelens_config import SaeLensConfig, parse_config
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.dictionary.storage.matrix import Matrix
from monitor.errors import DictionaryError

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

_VECTORS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}
_CENTRED = (
    *("GPT2-Small-SAEs-Reformatted", "GPT2-Small-Feature-Splitting-Experiment-Layer-8"),
    "gpt2-small-mlp-out-saes",
)
"""Repositories of dictionaries of a centred model whose `cfg.json` does not say so; SAELens has a list of them too."""
_MODEL = "model_from_pretrained_kwargs"
_KINDS = {"standard": Activation.RELU, "topk": Activation.TOPK, "jumprelu": Activation.JUMPRELU}


class SaeLensReader:
    """Reads what SAELens writes with `save_model`, of any version."""

    name = "saelens"
    wants = f"{CONFIG} and {WEIGHTS}"

    def detects(self, location: Location) -> bool:
        """True for SAELens's weights file without another format's `config.json`, or for a `cfg.json` with `d_sae`."""
        if location.chosen not in (None, WEIGHTS):
            return False
        if WEIGHTS in location.names and (CONFIG in location.names or "config.json" not in location.names):
            return True
        return CONFIG in location.names and "d_sae" in read_json(location.path(CONFIG))

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        files = (location.path(CONFIG), location.path(WEIGHTS))
        stated = read_json(files[0])
        unsaid = _centred_unsaid(stated, location.address)
        if unsaid:
            stated = {**stated, _MODEL: {"center_writing_weights": True}}
        config = parse_config(stated, str(files[0]))
        tensors = Tensors(files[1])
        logarithms = _check(tensors, config)
        encoder = tensors.matrix("W_enc", transposed=True)
        decoder = tensors.matrix("W_dec")
        for matrix in (encoder, decoder):
            if matrix.shape != (config.d_sae, config.d_in):
                raise DictionaryError(
                    f"{matrix.name} has {matrix.shape[0]} features of width {matrix.shape[1]}, and {CONFIG} "
                    f"states d_sae {config.d_sae} and d_in {config.d_in}: they are of different dictionaries"
                )
        matrices, parts = _build(tensors, config, encoder, decoder, logarithms)
        facts = ("center_writing_weights",) if unsaid else ()
        return DictionaryParts(matrices, parts, config.card, files, facts)


def _centred_unsaid(stated: dict[str, Any], address: str) -> bool:
    """Whether a dictionary was trained on a centred model though its `cfg.json` does not say so.

    True of the repositories that are known, and of GPT-2 dictionaries whose file is as old as theirs, under any name.
    Until September 2024 SAELens trained on models that TransformerLens had centred, and no file said so
    (github.com/decoderesearch/SAELens/pull/279); older files name the hook point `hook_point`. Dictionaries of other
    models whose file says nothing are read as they are. Such a file declares no quality, so the self-test would
    only notice gross differences.
    """
    if stated.keys() & {_MODEL, "metadata"}:
        return False
    old = "hook_point" in stated and re.search(r"(^|/)gpt-?2\b", str(stated.get("model_name"))) is not None
    return old or any(name in address for name in _CENTRED)


def _check(tensors: Tensors, config: SaeLensConfig) -> bool:
    """True where thresholds are stored as logarithms. Raises DictionaryError for missing or unknown tensors."""
    logarithms = config.architecture == "jumprelu" and "log_threshold" in tensors.names
    if "scaling_factor" in tensors.names:
        factor = tensors.vector("scaling_factor", config.d_sae)
        if not torch.allclose(factor, torch.ones_like(factor)):
            raise DictionaryError(
                f"{tensors.path}: scaling_factor is not all ones; a fine-tuned dictionary cannot be read"
            )
    own = tuple(
        "log_threshold" if logarithms and name == "threshold" else name
        for name in _VECTORS[config.architecture]
    )
    names = ("W_enc", "W_dec", "b_dec", *own)
    tensors.require(names, ("scaling_factor",), kind=f"a {config.architecture} dictionary")
    return logarithms


def _build(
    tensors: Tensors, config: SaeLensConfig, encoder: Matrix, decoder: Matrix, logarithms: bool
) -> tuple[dict[str, Matrix], dict[str, Any]]:
    scale, features = config.input_scale, config.d_sae
    bias = tensors.vector("b_dec", config.d_in) / scale
    parts: dict[str, Any] = {
        "decoder_bias": bias,
        "input_bias": bias if config.subtract_decoder_bias else None,
        "input_norm": config.input_norm,
    }
    scaled = encoder if scale == 1 else encoder.times(scale)
    matrices = {"encoder": scaled, "decoder": decoder if scale == 1 else decoder.times(1 / scale)}
    if config.architecture == "gated":
        matrices |= {"encoder": scaled.times(tensors.vector("r_mag", features).exp()), "gate_encoder": scaled}
        parts |= {"activation": Activation.GATED, "gate_bias": tensors.vector("b_gate", features)}
        return matrices, {**parts, "encoder_bias": tensors.vector("b_mag", features)}
    parts |= {"activation": _KINDS[config.architecture], "encoder_bias": tensors.vector("b_enc", features)}
    if config.architecture == "jumprelu":
        parts["threshold"] = _threshold(tensors, features, logarithms)
    if config.architecture == "topk":
        parts["k"] = config.k
        if config.rank_by_decoder_norm:
            # SAELens ranks by the decoder norms as stored, before the input scale is folded in.
            return _ranked(matrices, parts, decoder.norms().clamp_min(1e-8))
    return matrices, parts


def _threshold(tensors: Tensors, features: int, logarithms: bool) -> Tensor:
    if logarithms:
        return tensors.vector("log_threshold", features).exp()
    return tensors.vector("threshold", features).relu()


def _ranked(
    matrices: dict[str, Matrix], parts: dict[str, Any], norms: Tensor
) -> tuple[dict[str, Matrix], dict[str, Any]]:
    """Fold the decoder norms into the encoder: ranking by pre-activation alone then gives the same features."""
    folded = {
        "encoder": matrices["encoder"].times(norms),
        "decoder": matrices["decoder"].times(1 / norms),
    }
    return folded, {**parts, "encoder_bias": parts["encoder_bias"] * norms}
