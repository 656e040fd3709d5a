"""Reader for plain ReLU dictionaries: Goodfire's, and qresearch's for DeepSeek-R1.

Each is one pickled file with two linear layers. Nothing is subtracted from the input, and it is not normalised. The
file's name is the only record of the layer (`…-SAE-l19.pth`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.formats.common import names_inside, number_in, pickled, single
from monitor.dictionary.formats.location import Location, weights_of
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation

_CONFIGURATIONS = ("config.json", "cfg.json", "hyperparams.json")
"""A weights file with one of these files beside it is of another format."""


@dataclass(frozen=True)
class PlainReluReader:
    """Reads one file with the tensor names of one publisher."""

    name: str
    wants: str
    encoder: str
    """Prefix of the encoder's tensor names."""
    decoder: str
    """Prefix of the decoder's tensor names."""
    models: Mapping[str, str]
    """Names of the models on the hub, by a lower-case part of the location's address."""
    shared: bool = False
    """True where other formats use the same tensor names, so that the address must also contain a key of `models`."""

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        file = weights_of(location)
        if file is None or not pickled(file) or not location.names.isdisjoint(_CONFIGURATIONS):
            return False
        if self.shared and not any(part in f"{location.address}/{file}".lower() for part in self.models):
            return False
        return self._tensors() == names_inside(location)

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        file = single(location, self.wants)
        path = location.path(file)
        tensors = Tensors(path)
        tensors.require(self._tensors(), kind=f"a {self.name} dictionary")
        encoder = tensors.matrix(f"{self.encoder}.weight")
        features, width = encoder.shape
        parts = {
            "activation": Activation.RELU,
            "encoder_bias": tensors.vector(f"{self.encoder}.bias", features),
            "decoder_bias": tensors.vector(f"{self.decoder}.bias", width),
        }
        decoder = tensors.matrix(f"{self.decoder}.weight", transposed=True, like=encoder)
        return DictionaryParts(
            {"encoder": encoder, "decoder": decoder}, parts, self._card(location, file), (path,)
        )

    def _tensors(self) -> frozenset[str]:
        return frozenset(
            f"{side}.{part}" for side in (self.encoder, self.decoder) for part in ("weight", "bias")
        )

    def _card(self, location: Location, file: str) -> DictionaryCard:
        address = f"{location.address}/{file}".lower()
        layer = number_in(address, r"[-_]l(\d+)")
        return DictionaryCard(
            model_name=next((name for part, name in self.models.items() if part in address), None),
            hook_name=None if layer is None else f"blocks.{layer}.hook_resid_post",
            layer=layer,
            prepend_bos=True,
            dataset="lmsys/lmsys-chat-1m",
        )


GOODFIRE = PlainReluReader(
    name="goodfire",
    wants="one file such as Llama-3.1-8B-Instruct-SAE-l19.pth",
    encoder="encoder_linear",
    decoder="decoder_linear",
    models={
        "llama-3.1-8b-instruct": "meta-llama/Llama-3.1-8B-Instruct",
        "llama-3.3-70b-instruct": "meta-llama/Llama-3.3-70B-Instruct",
    },
)

QRESEARCH = PlainReluReader(
    name="qresearch",
    wants="one file such as DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt",
    encoder="encoder",
    decoder="decoder",
    models={"deepseek-r1-distill-llama-8b": "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"},
    shared=True,
)
