"""Reader for OpenMOSS's later dictionaries: `config.json` and `sae_weights.safetensors`.

Two sets of tensor names occur: those of llamascopium (`W_E`, `W_D`) and those of Llama-Scope-R1-Distill
(`encoder.weight`, `decoder.weight`). Thresholds are stored as logarithms, for activations of scaled inputs. Where
`sparsity_include_decoder_norm` is set, the pre-activation is multiplied by the decoder norm before it is compared
with the threshold or ranked for TopK.
"""

from __future__ import annotations

from typing import Any

import torch

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.common import whole
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.llama_scope import input_scale, refuse_transcoder
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.dictionary.storage.matrix import Matrix
from monitor.errors import DictionaryError

CONFIG = "config.json"
WEIGHTS = "sae_weights.safetensors"
_OWN = ("W_E", "b_E", "W_D", "b_D")
_LINEAR = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
_THRESHOLDS = ("activation_function.log_jumprelu_threshold", "log_jumprelu_threshold")
_NORM = "dataset_average_activation_norm."


class LlamascopiumReader:
    """Reads the folder of one dictionary."""

    name = "llamascopium"
    wants = f"{CONFIG} with expansion_factor, and {WEIGHTS}"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        if (
            WEIGHTS not in location.names
            or CONFIG not in location.names
            or location.chosen not in (None, WEIGHTS)
        ):
            return False
        return "expansion_factor" in read_json(location.path(CONFIG))

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        config_path, path = location.path(CONFIG), location.path(WEIGHTS)
        config = read_json(config_path)
        refuse_transcoder(config, config_path)
        if config.get("sae_type", "sae") != "sae" or config.get("use_glu_encoder"):
            raise DictionaryError(f"{config_path}: only sae_type 'sae' without a GLU encoder can be read")
        tensors = Tensors(path)
        encoder, decoder, biases = _matrices(tensors)
        features, width = encoder.shape
        scale, norm = input_scale(config, width, config_path, _stored_norm(tensors, config))
        bias = tensors.vector(biases[1], width) / scale
        parts = {
            "encoder_bias": tensors.vector(biases[0], features),
            "decoder_bias": bias,
            "input_bias": bias if config.get("apply_decoder_bias_to_pre_encoder") else None,
            "input_norm": norm,
            **_activation(config, tensors, decoder),
        }
        matrices = {"encoder": encoder.times(scale), "decoder": decoder.times(1 / scale)}
        hook = config.get("hook_point_in")
        card = DictionaryCard(model_name=config.get("model_name"), hook_name=hook, layer=layer_of(hook))
        return DictionaryParts(matrices, parts, card, (config_path, path))


def _matrices(tensors: Tensors) -> tuple[Matrix, Matrix, tuple[str, str]]:
    """The encoder, the decoder, and the names of their biases."""
    norms = tuple(name for name in tensors.names if name.startswith(_NORM))
    own = "W_E" in tensors.names
    names = _OWN if own else _LINEAR
    tensors.require(names, (*_THRESHOLDS, *norms), kind="a llamascopium dictionary")
    encoder = tensors.matrix(names[0], transposed=own)
    decoder = tensors.matrix(names[2], transposed=not own, like=encoder)
    return encoder, decoder, (names[1], names[3])


def _stored_norm(tensors: Tensors, config: dict[str, Any]) -> float | None:
    """The mean norm of inputs; None where the weights file does not hold it."""
    name = f"{_NORM}{config.get('hook_point_in')}"
    return tensors.number(name) if name in tensors.names else None


def _activation(config: dict[str, Any], tensors: Tensors, decoder: Matrix) -> dict[str, Any]:
    name, by_norm = (
        config.get("act_fn"),
        bool(config.get("sparsity_include_decoder_norm", "W_E" in tensors.names)),
    )
    if name == "relu":
        return {"activation": Activation.RELU}
    if name == "topk":
        k = whole(config, "top_k", tensors.path)
        return {"activation": Activation.TOPK, "k": k, "rank_by_decoder_norm": by_norm}
    if name != "jumprelu":
        raise DictionaryError(f"{tensors.path.parent}: act_fn {name!r} is not one of relu, topk, jumprelu")
    return {"activation": Activation.JUMPRELU, "threshold": _thresholds(tensors, decoder, by_norm)}


def _thresholds(tensors: Tensors, decoder: Matrix, by_norm: bool) -> torch.Tensor:
    stored = next((name for name in _THRESHOLDS if name in tensors.names), None)
    if stored is None:
        raise DictionaryError(f"{tensors.path}: a jumprelu dictionary has {' or '.join(_THRESHOLDS)}")
    threshold = tensors.per_feature(stored, decoder.shape[0]).exp()
    return threshold / decoder.norms().clamp_min(1e-8) if by_norm else threshold
