"""Reader for EleutherAI sparsify: `cfg.json` and `sae.safetensors` in one folder per module (`layers.10`, `h.0.mlp`).

The dictionary reads the output of the module that its folder is named after. It is TopK (Gao et al., 2024) or has one
active feature per group; the decoder bias is subtracted from the input.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.common import whole
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.location import Location
from monitor.dictionary.formats.reader import DictionaryParts
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


class SparsifyReader:
    """Reads the folder of one module."""

    name = "sparsify"
    wants = f"{CONFIG} and {WEIGHTS} in a folder named after a module, such as layers.10"

    def detects(self, location: Location) -> bool:
        """See `FormatReader`."""
        return WEIGHTS in (location.chosen, *(location.names if location.chosen is None else ()))

    def read(self, location: Location) -> DictionaryParts:
        """See `FormatReader`."""
        config_path, path = location.path(CONFIG), location.path(WEIGHTS)
        config = read_json(config_path)
        _refuse_others(config, config_path)
        tensors = Tensors(path)
        tensors.require(_TENSORS, kind="a sparsify dictionary of one hook point")
        encoder = tensors.matrix("encoder.weight")
        features, width = encoder.shape
        _same(config, features, width, config_path)
        bias = tensors.vector("b_dec", width)
        parts = {
            "activation": Activation.TOPK,
            "k": whole(config, "k", config_path),
            "grouped": config.get("activation") == "groupmax",
            "encoder_bias": tensors.vector("encoder.bias", features),
            "decoder_bias": bias,
            "input_bias": bias,
        }
        matrices = {"encoder": encoder, "decoder": tensors.matrix("W_dec", like=encoder)}
        return DictionaryParts(matrices, parts, _card(location), (config_path, path))


def _refuse_others(config: dict[str, Any], where: object) -> None:
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise DictionaryError(f"{where}: activation {activation!r} is not one of topk, groupmax")
    if config.get("transcode") or config.get("skip_connection"):
        raise DictionaryError(
            f"{where}: this is a transcoder; only a dictionary of one hook point can be watched"
        )
    if config.get("signed"):
        raise DictionaryError(f"{where}: a dictionary with signed activations cannot be watched")


def _same(config: dict[str, Any], features: int, width: int, where: object) -> None:
    declared = config.get("num_latents") or whole(config, "d_in", where) * whole(
        config, "expansion_factor", where
    )
    if (declared, config.get("d_in", width)) != (features, width):
        raise DictionaryError(
            f"{where} declares {declared} features of width {config.get('d_in')}, and {WEIGHTS} has {features} of "
            f"width {width}: they are of different dictionaries"
        )


def _card(location: Location) -> DictionaryCard:
    """The card. Model, context and data are in the run's configuration one folder up, which may be missing."""
    address = PurePosixPath(location.address)
    folder = address.parent.name if location.chosen else address.name
    path = location.parent_file("config.json")
    run = {} if path is None else read_json(path)
    return DictionaryCard(
        model_name=run.get("model"),
        hook_name=folder or None,
        layer=layer_of(folder),
        context_size=run.get("ctx_len"),
        dataset=run.get("dataset"),
    )
