"""SAELens folders: `cfg.json` and `sae_weights.safetensors`.

Knows the tensors of each architecture and folds what only changes units (input scale, decoder-norm ranking).
Does not know the versions of `cfg.json` (`saelens_config`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from monitor.dictionary.autoencoder import Activation, SparseAutoencoder
from monitor.dictionary.formats.files import read_json, read_tensors
from monitor.dictionary.formats.reader import Stored
from monitor.dictionary.formats.saelens_config import SaeLensConfig, parse_config
from monitor.errors import DictionaryError

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

_VECTORS = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
}


class SaeLensReader:
    """Reads what SAELens writes with `save_model`, of any version."""

    name = "saelens"
    wants = f"{CONFIG} and {WEIGHTS}"

    def detects(self, folder: Path) -> bool:
        """True where either the weights are there, or a `cfg.json` with SAELens's `d_sae`."""
        if (folder / WEIGHTS).is_file():
            return True
        config = folder / CONFIG
        return config.is_file() and "d_sae" in read_json(config)

    def read(self, folder: Path) -> Stored:
        """The dictionary of this folder; see `Reader.read`."""
        files = (folder / CONFIG, folder / WEIGHTS)
        config = parse_config(read_json(files[0]), str(files[0]))
        tensors = _checked(read_tensors(files[1]), config, str(files[1]))
        return Stored(_build(tensors, config), config.card, files)


def _checked(tensors: dict[str, Tensor], config: SaeLensConfig, where: str) -> dict[str, Tensor]:
    """The tensors of this architecture, all of them and no other, of the declared shapes."""
    if "log_threshold" in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").exp()
    factor = tensors.pop("scaling_factor", None)
    if factor is not None and not torch.allclose(factor, torch.ones_like(factor)):
        raise DictionaryError(
            f"{where}: scaling_factor is not all ones; a fine-tuned dictionary cannot be read"
        )
    shapes: dict[str, tuple[int, ...]] = {
        "W_enc": (config.d_in, config.d_sae),
        "W_dec": (config.d_sae, config.d_in),
        "b_dec": (config.d_in,),
    }
    shapes.update(dict.fromkeys(_VECTORS[config.architecture], (config.d_sae,)))
    missing, unknown = shapes.keys() - tensors.keys(), tensors.keys() - shapes.keys()
    if missing or unknown:
        raise DictionaryError(
            f"{where}: a {config.architecture} dictionary has the tensors {', '.join(sorted(shapes))}; "
            f"missing here: {', '.join(sorted(missing)) or 'none'}; unknown: {', '.join(sorted(unknown)) or 'none'}"
        )
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise DictionaryError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}; with d_in {config.d_in} and "
                f"d_sae {config.d_sae} it must be {shape}"
            )
    return tensors


def _build(tensors: dict[str, Tensor], config: SaeLensConfig) -> SparseAutoencoder:
    scale = config.input_scale
    encoder = tensors["W_enc"].T.contiguous() * scale
    decoder, decoder_bias = tensors["W_dec"] / scale, tensors["b_dec"] / scale
    subtracted = decoder_bias if config.subtract_decoder_bias else None
    plain = SparseAutoencoder(
        activation=Activation.RELU,
        encoder=encoder,
        encoder_bias=tensors["b_enc"] if "b_enc" in tensors else tensors["b_mag"],
        decoder=decoder,
        decoder_bias=decoder_bias,
        input_bias=subtracted,
        input_norm=config.input_norm,
    )
    if config.architecture == "jumprelu":
        return replace(plain, activation=Activation.JUMPRELU, threshold=tensors["threshold"].relu())
    if config.architecture == "gated":
        magnitude = encoder * tensors["r_mag"].exp().unsqueeze(1)
        return replace(
            plain,
            activation=Activation.GATED,
            encoder=magnitude,
            gate_encoder=encoder,
            gate_bias=tensors["b_gate"],
        )
    if config.architecture == "topk":
        # The scale is undone in the norms: SAELens ranks by the norms before it was folded in.
        return _ranked(replace(plain, activation=Activation.TOPK, k=config.k), config, tensors["W_dec"])
    return plain


def _ranked(topk: SparseAutoencoder, config: SaeLensConfig, stored: Tensor) -> SparseAutoencoder:
    """Decoder norms folded into the encoder where features are ranked by them: same order, same numbers."""
    if not config.rank_by_decoder_norm:
        return topk
    norms = stored.norm(dim=-1).clamp_min(1e-8)
    return replace(
        topk,
        encoder=topk.encoder * norms.unsqueeze(1),
        encoder_bias=topk.encoder_bias * norms,
        decoder=topk.decoder / norms.unsqueeze(1),
    )
