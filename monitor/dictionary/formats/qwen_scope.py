"""Qwen Scope: `layer{n}.sae.pt` in `Qwen/SAE-Res-{model}-W{N}K-L0_{K}`.

TopK without subtraction, matrices turned against SAELens's. k, model and layer stand only in names.
"""

from __future__ import annotations

import re

from monitor.dictionary.formats.card import Card
from monitor.dictionary.formats.families import number_in, single
from monitor.dictionary.formats.place import Place, weights_of
from monitor.dictionary.formats.reader import Found
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError

_FILE = re.compile(r"layer(\d+)\.sae\.pt")
_REPOSITORY = re.compile(r"SAE-Res-(.+?)-W(\d+)K-L0_(\d+)")


class QwenScopeReader:
    """Reads one layer's file."""

    name = "qwen-scope"
    wants = "layerN.sae.pt in a folder named as its repository, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50"

    def detects(self, place: Place) -> bool:
        """See `Reader`."""
        return _FILE.fullmatch(weights_of(place) or "") is not None

    def read(self, place: Place) -> Found:
        """See `Reader`."""
        file = single(place, self.wants)
        named = _REPOSITORY.search(place.address)
        if named is None:
            raise DictionaryError(
                f"{place.label}: how many features are active at a token (k) stands only in the repository's name; "
                "keep the file in a folder of that name, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50"
            )
        path, k = place.path(file), int(named[3])
        tensors = Tensors(path)
        tensors.need(("W_enc", "W_dec", "b_enc", "b_dec"), kind="a Qwen Scope dictionary")
        encoder = tensors.matrix("W_enc")
        features, width = encoder.shape
        parts = {
            "activation": Activation.TOPK,
            "k": k,
            "encoder_bias": tensors.vector("b_enc", features),
            "decoder_bias": tensors.vector("b_dec", width),
        }
        matrices = {"encoder": encoder, "decoder": tensors.matrix("W_dec", transposed=True, like=encoder)}
        layer = number_in(file, r"layer(\d+)")
        hook = None if layer is None else f"model.layers.{layer}"
        card = Card(model_name=f"Qwen/{named[1]}", hook_name=hook, layer=layer, l0=float(k))
        return Found(matrices, parts, card, (path,), (f"k={k}",))
