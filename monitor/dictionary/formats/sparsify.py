"""EleutherAI sparsify: a folder per place (`layers.10`, `h.0.mlp`) with `cfg.json` and `sae.safetensors`.

TopK (Gao et al., 2024) or one feature per group, after subtracting the decoder bias. The place is the output of the
module that the folder is named after.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from monitor.dictionary.formats.card import Card, layer_of
from monitor.dictionary.formats.families import whole
from monitor.dictionary.formats.files import read_json
from monitor.dictionary.formats.place import Place
from monitor.dictionary.formats.reader import Found
from monitor.dictionary.formats.tensors import Tensors
from monitor.dictionary.sae import Activation
from monitor.errors import DictionaryError

CONFIG = "cfg.json"
WEIGHTS = "sae.safetensors"
_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")


class SparsifyReader:
    """Reads one folder of a run."""

    name = "sparsify"
    wants = f"{CONFIG} and {WEIGHTS} in a folder named after a module, such as layers.10"

    def detects(self, place: Place) -> bool:
        """See `Reader`."""
        return WEIGHTS in (place.chosen, *(place.names if place.chosen is None else ()))

    def read(self, place: Place) -> Found:
        """See `Reader`."""
        config_path, path = place.path(CONFIG), place.path(WEIGHTS)
        config = read_json(config_path)
        _refuse_others(config, config_path)
        tensors = Tensors(path)
        tensors.need(_TENSORS, kind="a sparsify dictionary of one place")
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
        return Found(matrices, parts, _card(place), (config_path, path))


def _refuse_others(config: dict[str, Any], where: object) -> None:
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise DictionaryError(f"{where}: activation {activation!r} is not one of topk, groupmax")
    if config.get("transcode") or config.get("skip_connection"):
        raise DictionaryError(f"{where}: this is a transcoder; only a dictionary of one place can be watched")
    if config.get("signed"):
        raise DictionaryError(f"{where}: signed features, which may be negative, cannot be watched")


def _same(config: dict[str, Any], features: int, width: int, where: object) -> None:
    declared = config.get("num_latents") or whole(config, "d_in", where) * whole(
        config, "expansion_factor", where
    )
    if (declared, config.get("d_in", width)) != (features, width):
        raise DictionaryError(
            f"{where} declares {declared} features of width {config.get('d_in')}, and {WEIGHTS} has {features} of "
            f"width {width}: they are of different dictionaries"
        )


def _card(place: Place) -> Card:
    """The run's own configuration, with model, context and data, is one folder up and may not be there."""
    address = PurePosixPath(place.address)
    folder = address.parent.name if place.chosen else address.name
    path = place.above("config.json")
    run = {} if path is None else read_json(path)
    return Card(
        model_name=run.get("model"),
        hook_name=folder or None,
        layer=layer_of(folder),
        context_size=run.get("ctx_len"),
        dataset=run.get("dataset"),
    )
