"""Reader for Llama Scope (He et al., 2024): `hyperparams.json` and `checkpoints/final.safetensors` of
`fnlp/Llama3_1-8B-Base-LX…`.

These are JumpReLU dictionaries with one threshold for all features. Inputs are scaled by s = √d / (mean norm over the
data set). The files state the threshold for activations of unscaled inputs. This reader gives activations of scaled
inputs, as SAELens and Neuronpedia do, so it multiplies both encoder and threshold by s.
"""

from __future__ import annotations

from typing import Any

import torch

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.common import positive
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation, InputNorm
from monitor.errors import DictionaryError

CONFIG = "hyperparams.json"
WEIGHTS = "checkpoints/final.safetensors"
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight")


class LlamaScopeReader:
    """Reads the folder of one layer."""

    name = "llama-scope"
    wants = f"{CONFIG} and {WEIGHTS}"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        return location.chosen is None and CONFIG in location.names

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        config_path, path = location.path(CONFIG), location.path(WEIGHTS)
        config = read_json(config_path)
        refuse_transcoder(config, config_path)
        if config.get("act_fn") != "jumprelu":
            raise DictionaryError(
                f"{config_path}: act_fn {config.get('act_fn')!r} cannot be read; only jumprelu can"
            )
        tensors = Tensors(path)
        biased = bool(config.get("use_decoder_bias", True))
        tensors.require((*_LINEAR, *(("decoder.bias",) if biased else ())), kind="a Llama Scope dictionary")
        encoder = tensors.matrix("encoder.weight")
        features, width = encoder.shape
        scale, norm = input_scale(config, width, config_path)
        threshold = positive(config.get("jump_relu_threshold"), "jump_relu_threshold", config_path)
        decoder = tensors.matrix("decoder.weight", transposed=True, like=encoder)
        bias = (tensors.vector("decoder.bias", width) if biased else torch.zeros(width)) / scale
        limits = torch.full((features,), threshold * scale)
        if config.get("sparsity_include_decoder_norm"):
            limits = limits / decoder.norms().clamp_min(1e-8)
        parts = {
            "activation": Activation.JUMPRELU,
            "encoder_bias": tensors.vector("encoder.bias", features),
            "decoder_bias": bias,
            "input_bias": bias if config.get("apply_decoder_bias_to_pre_encoder") else None,
            "input_norm": norm,
            "threshold": limits,
        }
        matrices = {"encoder": encoder.times(scale), "decoder": decoder.times(1 / scale)}
        return DictionaryParts(matrices, parts, _card(config), (config_path, path))


def refuse_transcoder(config: dict[str, Any], where: object) -> None:
    """Raise DictionaryError where the dictionary reads one hook point and writes another."""
    inside, out = config.get("hook_point_in"), config.get("hook_point_out")
    if out is not None and inside != out:
        raise DictionaryError(
            f"{where}: this is a transcoder from {inside} to {out}; only a dictionary of one hook point can be watched"
        )


def input_scale(
    config: dict[str, Any], width: int, where: object, stored: float | None = None
) -> tuple[float, InputNorm]:
    """The factor by which inputs are scaled, and how each token's input is normalised.

    `stored` is the mean input norm where the weights file holds it; else it is read from the configuration.
    """
    kind = config.get("norm_activation", "dataset-wise")
    if kind in ("inference", "none"):
        return 1.0, InputNorm.NONE
    if kind == "token-wise":
        return 1.0, InputNorm.CONSTANT_NORM
    if kind != "dataset-wise":
        raise DictionaryError(
            f"{where}: norm_activation {kind!r} is not one of dataset-wise, token-wise, inference, none"
        )
    if stored is None:
        norms = config.get("dataset_average_activation_norm")
        norms = norms if isinstance(norms, dict) else {}
        stored = positive(
            norms.get("in", norms.get(str(config.get("hook_point_in")))),
            "dataset_average_activation_norm.in",
            where,
        )
        positive(norms.get("out", stored), "dataset_average_activation_norm.out", where)
        if norms.get("out", stored) != stored:
            raise DictionaryError(
                f"{where}: dataset_average_activation_norm differs for in and out, which only transcoders need"
            )
    return width**0.5 / stored, InputNorm.NONE


def _card(config: dict[str, Any]) -> DictionaryCard:
    hook = config.get("hook_point_in")
    return DictionaryCard(
        model_name="meta-llama/Llama-3.1-8B",
        hook_name=hook,
        layer=layer_of(hook),
        prepend_bos=True,
        context_size=1024,
        dataset="cerebras/SlimPajama-627B",
    )
