"""Goodfire's dictionaries and qresearch's for DeepSeek-R1: one pickled file of two linear layers, ReLU between.

Nothing is subtracted, nothing normed. The layer stands only in the file's name (`…-SAE-l19.pth`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitor.dictionary.formats.card import Card
from monitor.dictionary.formats.families import names_inside, number_in, pickled, single
from monitor.dictionary.formats.place import Place, weights_of
from monitor.dictionary.formats.reader import Found
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation

_CONFIGURATIONS = ("config.json", "cfg.json", "hyperparams.json")
"""Where one of these lies beside the weights, they belong to another family."""


@dataclass(frozen=True)
class PlainReluReader:
    """Reads one file of this kind."""

    name: str
    wants: str
    encoder: str
    """What the tensors of the encoder begin with."""
    decoder: str
    models: Mapping[str, str]
    """Part of the address, in lower case, to the model's name on the hub."""
    shared: bool = False
    """True where other families name their tensors the same, so that the file's name has to tell."""

    def detects(self, place: Place) -> bool:
        """See `Reader`."""
        file = weights_of(place)
        if file is None or not pickled(file) or not place.names.isdisjoint(_CONFIGURATIONS):
            return False
        if self.shared and not any(part in f"{place.address}/{file}".lower() for part in self.models):
            return False
        return self._tensors() == names_inside(place)

    def read(self, place: Place) -> Found:
        """See `Reader`."""
        file = single(place, self.wants)
        path = place.path(file)
        tensors = Tensors(path)
        tensors.need(self._tensors(), kind=f"a {self.name} dictionary")
        encoder = tensors.matrix(f"{self.encoder}.weight")
        features, width = encoder.shape
        parts = {
            "activation": Activation.RELU,
            "encoder_bias": tensors.vector(f"{self.encoder}.bias", features),
            "decoder_bias": tensors.vector(f"{self.decoder}.bias", width),
        }
        decoder = tensors.matrix(f"{self.decoder}.weight", transposed=True, like=encoder)
        return Found({"encoder": encoder, "decoder": decoder}, parts, self._card(place, file), (path,))

    def _tensors(self) -> frozenset[str]:
        return frozenset(
            f"{side}.{part}" for side in (self.encoder, self.decoder) for part in ("weight", "bias")
        )

    def _card(self, place: Place, file: str) -> Card:
        address = f"{place.address}/{file}".lower()
        layer = number_in(address, r"[-_]l(\d+)")
        return Card(
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
