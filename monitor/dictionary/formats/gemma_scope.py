"""Gemma Scope: `params.npz` in `layer_L/width_W/average_l0_N` of `google/gemma-scope-…` (Lieberum et al., 2024).

JumpReLU with a linear threshold per feature, nothing subtracted, no norm. Model, layer and place stand only in the
names of the folders.
"""

from __future__ import annotations

import re

from monitor.dictionary.formats.card import Card, layer_of
from monitor.dictionary.formats.families import number_in
from monitor.dictionary.formats.place import Place
from monitor.dictionary.formats.reader import Found
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError

WEIGHTS = "params.npz"
_MODEL = re.compile(r"gemma-scope-(2b|9b|27b)-(pt|it)-(\w+)")
_HOOKS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_TENSORS = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")


class GemmaScopeReader:
    """Reads one `params.npz`."""

    name = "gemma-scope"
    wants = f"{WEIGHTS} in a folder such as gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"

    def detects(self, place: Place) -> bool:
        """See `Reader`."""
        return place.chosen == WEIGHTS or (place.chosen is None and WEIGHTS in place.names)

    def read(self, place: Place) -> Found:
        """See `Reader`."""
        if "embedding" in place.address.split("/"):
            raise DictionaryError(
                f"{place.label} reads token embeddings; only dictionaries of a place in the layers can be watched"
            )
        path = place.path(WEIGHTS)
        tensors = Tensors(path)
        spelled = {name.lower(): name for name in tensors.names}
        tensors.need((spelled.get(name, name) for name in _TENSORS), kind="a Gemma Scope dictionary")
        encoder = tensors.matrix(spelled["w_enc"], transposed=True)
        features, width = encoder.shape
        parts = {
            "activation": Activation.JUMPRELU,
            "encoder_bias": tensors.vector(spelled["b_enc"], features),
            "decoder_bias": tensors.vector(spelled["b_dec"], width),
            "threshold": tensors.vector(spelled["threshold"], features).relu(),
        }
        decoder = tensors.matrix(spelled["w_dec"], like=encoder)
        return Found({"encoder": encoder, "decoder": decoder}, parts, _card(place.address), (path,))


def _card(address: str) -> Card:
    model, layer = _MODEL.search(address), number_in(address, r"layer_(\d+)")
    hook = None
    if model is not None and layer is not None and model[3] in _HOOKS:
        hook = f"blocks.{layer}.{_HOOKS[model[3]]}"
    declared = number_in(address, r"average_l0_(\d+)")
    return Card(
        model_name=None if model is None else f"google/gemma-2-{model[1]}{'-it' if model[2] == 'it' else ''}",
        hook_name=hook,
        layer=layer_of(hook),
        prepend_bos=True,
        context_size=1024,
        dataset="monology/pile-uncopyrighted",
        l0=None if declared is None else float(declared),
    )
