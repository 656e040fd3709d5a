"""Reader for OpenAI's dictionaries for GPT-2 small (Gao et al., 2024): `…/{location}_v5_32k/autoencoders/{layer}.pt`.

Each is a pickled dict of tensors that also names its activation function. The input of a TopK dictionary is
layer-normalised, that of a ReLU dictionary is not. The bias is subtracted after the normalisation.
"""

from __future__ import annotations

import re
from typing import Any

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.common import names_inside, pickled, single, whole
from monitor.dictionary.formats.location import Location, weights_of
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation, InputNorm
from monitor.errors import DictionaryError

_TENSORS = ("pre_bias", "encoder.weight", "latent_bias", "decoder.weight")
_REST = (
    "activation",
    "activation_state_dict",
    "stats_last_nonzero",
    "latents_activation_frequency",
    "latents_mean_square",
)
_ADDRESS = re.compile(r"/([a-z_]+?)(?:_v\d\w*)?/autoencoders/(\d+)\.pt$")
_HOOKS = {
    "resid_post_mlp": "hook_resid_post",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_delta_attn": "hook_attn_out",
    "mlp_post_act": "mlp.hook_post",
}


class OpenAiReader:
    """Reads the file of one layer."""

    name = "openai"
    wants = "one file such as resid_post_mlp_v5_32k/autoencoders/8.pt"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        file = weights_of(location)
        return file is not None and pickled(file) and names_inside(location) >= set(_TENSORS)

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        path = location.path(single(location, self.wants))
        tensors = Tensors(path)
        tensors.require(_TENSORS, _REST, kind="an OpenAI dictionary")
        encoder = tensors.matrix("encoder.weight")
        features, width = encoder.shape
        bias = tensors.vector("pre_bias", width)
        parts = {
            "encoder_bias": tensors.vector("latent_bias", features),
            "decoder_bias": bias,
            "input_bias": bias,
            **_activation(tensors),
        }
        decoder = tensors.matrix("decoder.weight", transposed=True, like=encoder)
        address = location.address if location.chosen else f"{location.address}/{path.name}"
        return DictionaryParts({"encoder": encoder, "decoder": decoder}, parts, _card(address), (path,))


def _activation(tensors: Tensors) -> dict[str, Any]:
    name, state = tensors.plain("activation", "ReLU"), tensors.plain("activation_state_dict", {})
    if name == "ReLU":
        return {"activation": Activation.RELU}
    if name != "TopK" or not isinstance(state, dict):
        raise DictionaryError(f"{tensors.path}: activation {name!r} is not one of ReLU, TopK")
    if state.get("postact_fn", "ReLU") != "ReLU":
        raise DictionaryError(
            f"{tensors.path}: postact_fn is {state['postact_fn']!r}, with which activations may be negative; only "
            "ReLU can be watched"
        )
    return {
        "activation": Activation.TOPK,
        "k": whole(state, "k", tensors.path),
        "input_norm": InputNorm.LAYER_NORM,
    }


def _card(address: str) -> DictionaryCard:
    named = _ADDRESS.search(address)
    hook = None
    if named is not None and named[1] in _HOOKS:
        hook = f"blocks.{named[2]}.{_HOOKS[named[1]]}"
    return DictionaryCard(
        model_name="openai-community/gpt2", hook_name=hook, layer=layer_of(hook), context_size=64
    )
