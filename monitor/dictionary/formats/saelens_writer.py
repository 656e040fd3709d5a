"""Writer for the layout of SAELens version 6, which `SAE.load_from_disk` and the tools built on it open."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.sae import Activation, InputNorm, SparseAutoencoder
from monitor.errors import DictionaryError

_LAYOUT_VERSION = "6.0.0"
"""The first SAELens version whose layout this is."""

_ARCHITECTURES = {
    Activation.RELU: "standard",
    Activation.JUMPRELU: "jumprelu",
    Activation.TOPK: "topk",
    Activation.GATED: "gated",
}
_TIED = 1e-5
"""Largest relative difference between a gated dictionary's encoder row and a multiple of its gate row."""
_NORMS = {
    InputNorm.NONE: "none",
    InputNorm.LAYER_NORM: "layer_norm",
    InputNorm.CONSTANT_NORM: "constant_norm_rescale",
    InputNorm.CENTRED: "none",
}


def save_saelens(
    folder: Path,
    sae: SparseAutoencoder,
    card: DictionaryCard,
    *,
    density: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write `cfg.json`, `sae_weights.safetensors` and, with `density` `[features]`, `sparsity.safetensors`.

    Encoder and decoder are stored in `dtype`, biases and thresholds in float32. The configuration is written last, so
    that an interrupted save is not taken for a dictionary. An input bias that differs from the decoder bias is folded
    into the encoder bias, which gives the same activations.

    Raises DictionaryError for what the layout cannot express: TopK with one active feature per group, TopK ranked by
    decoder norm, and gates whose directions are not those of the encoder.
    """
    if sae.grouped:
        raise DictionaryError(
            "the SAELens layout cannot express a TopK dictionary with one active feature per group"
        )
    if sae.rank_by_decoder_norm:
        raise DictionaryError("fold the decoder norms into the encoder before saving a TopK dictionary")
    sae = _own_bias_folded(sae.whole())
    folder.mkdir(parents=True, exist_ok=True)
    _save(_tensors(sae, dtype), folder / "sae_weights.safetensors")
    if density is not None:
        sparsity = (density.detach().float().cpu() + 1e-10).log10()
        _save({"sparsity": sparsity}, folder / "sparsity.safetensors")
    config = json.dumps(_config(sae, card), indent=2) + "\n"
    _replace(folder / "cfg.json", lambda path: path.write_text(config, "utf-8"))


def _tensors(sae: SparseAutoencoder, dtype: torch.dtype) -> dict[str, Tensor]:
    tensors = {"W_dec": sae.decoder.to(dtype), "b_dec": sae.decoder_bias.float()}
    if sae.activation is Activation.GATED:
        return tensors | _gated(sae, dtype)
    tensors |= {"W_enc": sae.encoder.T.to(dtype), "b_enc": sae.encoder_bias.float()}
    if sae.threshold is not None:
        tensors["threshold"] = sae.threshold.float()
    return tensors


def _gated(sae: SparseAutoencoder, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of a gated dictionary. SAELens stores the gate encoder W; row i of the encoder is W_i · exp(r_mag_i)."""
    assert sae.gate_encoder is not None
    assert sae.gate_bias is not None
    gate, size = sae.gate_encoder, sae.gate_encoder.norm(dim=-1).clamp_min(1e-12)
    factor = (sae.encoder * gate).sum(-1) / size.square()
    off = (sae.encoder - gate * factor.unsqueeze(1)).abs().amax() / sae.encoder.abs().amax()
    if bool((factor <= 0).any()) or float(off) > _TIED:
        raise DictionaryError(
            "the SAELens layout cannot express a gated dictionary whose gate rows point in other directions than its "
            "encoder rows"
        )
    return {
        "W_enc": gate.T.to(dtype),
        "r_mag": factor.log().float(),
        "b_mag": sae.encoder_bias.float(),
        "b_gate": sae.gate_bias.float(),
    }


def _own_bias_folded(sae: SparseAutoencoder) -> SparseAutoencoder:
    """The same dictionary with W·b_in subtracted from the encoder biases, where b_in is not the decoder bias."""
    if sae.input_bias is None or torch.equal(sae.input_bias, sae.decoder_bias):
        return sae
    shift = sae.input_bias.double()
    bias = (sae.encoder_bias.double() - sae.encoder.double() @ shift).float()
    gate_bias = sae.gate_bias
    if sae.gate_encoder is not None and gate_bias is not None:
        gate_bias = (gate_bias.double() - sae.gate_encoder.double() @ shift).float()
    return replace(sae, encoder_bias=bias, gate_bias=gate_bias, input_bias=None)


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    _replace(path, lambda part: save_file(ready, part))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    part = path.with_name(path.name + ".part")
    write(part)
    os.replace(part, path)


def _config(sae: SparseAutoencoder, card: DictionaryCard) -> dict[str, Any]:
    config: dict[str, Any] = {
        "architecture": _ARCHITECTURES[sae.activation],
        "d_in": sae.d_model,
        "d_sae": sae.features,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.input_bias is not None,
        "normalize_activations": _NORMS[sae.input_norm],
        "reshape_activations": "none",
        "metadata": _metadata(card),
    }
    if sae.input_norm is InputNorm.CENTRED:
        config["metadata"]["model_from_pretrained_kwargs"] = {"center_writing_weights": True}
    if sae.activation is Activation.TOPK:
        config["k"] = sae.k
    return config


def _metadata(card: DictionaryCard) -> dict[str, Any]:
    """The card as SAELens metadata; SAELens keeps entries that it does not use."""
    stated = {
        "model_name": card.model_name,
        "hook_name": card.hook_name,
        "hf_hook_name": None if card.layer is None else f"model.layers.{card.layer}",
        "prepend_bos": card.prepend_bos,
        "context_size": card.context_size,
        "dataset_path": card.dataset,
        "neuronpedia_id": card.neuronpedia_id,
        "l0": card.l0,
        "explained_variance": card.explained_variance,
        "norm_limit": card.norm_limit,
    }
    known = {name: value for name, value in stated.items() if value is not None}
    return {"sae_lens_version": _LAYOUT_VERSION, **known}
