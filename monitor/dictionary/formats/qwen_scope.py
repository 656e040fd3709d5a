"""Reader for Qwen Scope: `layer{n}.sae.pt` in `Qwen/SAE-Res-{model}-W{N}K-L0_{K}`.

These are TopK dictionaries; nothing is subtracted from the input. Both matrices are transposed compared with
SAELens's. The names of repository and file are the only record of k, model and layer.
"""

from __future__ import annotations

import re

from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.formats.common import number_in, single
from monitor.dictionary.formats.location import Location, weights_of
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError

_FILE = re.compile(r"layer(\d+)\.sae\.pt")
_REPOSITORY = re.compile(r"SAE-Res-(.+?)-W(\d+)K-L0_(\d+)")


class QwenScopeReader:
    """Reads the file of one layer."""

    name = "qwen-scope"
    wants = "layerN.sae.pt in a folder named as its repository, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        return _FILE.fullmatch(weights_of(location) or "") is not None

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        file = single(location, self.wants)
        named = _REPOSITORY.search(location.address)
        if named is None:
            raise DictionaryError(
                f"{location.label}: k, the number of active features per token, is stated only in the repository's "
                "name; keep the file in a folder of that name, such as SAE-Res-Qwen3-8B-Base-W64K-L0_50"
            )
        path, k = location.path(file), int(named[3])
        tensors = Tensors(path)
        tensors.require(("W_enc", "W_dec", "b_enc", "b_dec"), kind="a Qwen Scope dictionary")
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
        card = DictionaryCard(model_name=f"Qwen/{named[1]}", hook_name=hook, layer=layer, l0=float(k))
        return DictionaryParts(matrices, parts, card, (path,), (f"k={k}",))
