"""Reader for Gemma Scope (Lieberum et al., 2024), published as `google/gemma-scope-…`.

The weights are `params.npz` in a folder such as `layer_20/width_16k/average_l0_71`. These are JumpReLU dictionaries
with one threshold per feature. Nothing is subtracted from the input, and it is not normalised. The names of the
folders are the only record of model, layer and hook point.
"""

from __future__ import annotations

import re

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.common import number_in
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
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

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        return location.chosen == WEIGHTS or (location.chosen is None and WEIGHTS in location.names)

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        if "embedding" in location.address.split("/"):
            raise DictionaryError(
                f"{location.label} reads token embeddings; only a dictionary of a decoder layer can be watched"
            )
        path = location.path(WEIGHTS)
        tensors = Tensors(path)
        spelled = {name.lower(): name for name in tensors.names}
        tensors.require((spelled.get(name, name) for name in _TENSORS), kind="a Gemma Scope dictionary")
        encoder = tensors.matrix(spelled["w_enc"], transposed=True)
        features, width = encoder.shape
        parts = {
            "activation": Activation.JUMPRELU,
            "encoder_bias": tensors.vector(spelled["b_enc"], features),
            "decoder_bias": tensors.vector(spelled["b_dec"], width),
            "threshold": tensors.vector(spelled["threshold"], features).relu(),
        }
        decoder = tensors.matrix(spelled["w_dec"], like=encoder)
        return DictionaryParts(
            {"encoder": encoder, "decoder": decoder}, parts, _card(location.address), (path,)
        )


def _card(address: str) -> DictionaryCard:
    model, layer = _MODEL.search(address), number_in(address, r"layer_(\d+)")
    hook = None
    if model is not None and layer is not None and model[3] in _HOOKS:
        hook = f"blocks.{layer}.{_HOOKS[model[3]]}"
    declared = number_in(address, r"average_l0_(\d+)")
    return DictionaryCard(
        model_name=None if model is None else f"google/gemma-2-{model[1]}{'-it' if model[2] == 'it' else ''}",
        hook_name=hook,
        layer=layer_of(hook),
        prepend_bos=True,
        context_size=1024,
        dataset="monology/pile-uncopyrighted",
        l0=None if declared is None else float(declared),
    )
