"""Checkpoints of dictionary_learning, a class each: the state dicts that its modules save, and their arithmetic."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.dictionary.formats.layouts import (
    FEATURES,
    WIDTH,
    Layout,
    doubles,
    four,
    random,
    thresholds,
    top_k,
    write_json,
    write_pickle,
)

K = 9
CLASSES = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "JumpReluAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
)
_LOADED = {name: "dictionary_learning_1" for name in CLASSES if name != "AutoEncoderNew"}


def learned(root: Path, kind: str, *, threshold: float = 0.8) -> Layout:
    """One trainer's folder with this `dict_class`."""
    repo, inside = "canrager/lm_sae", f"pythia70m_{kind}/resid_post_layer_3/trainer_2"
    state, reference = _made(kind, threshold)
    write_pickle(root / repo / inside / "ae.pt", OrderedDict(state))
    trainer = {
        "dict_class": kind,
        "activation_dim": WIDTH,
        "dict_size": FEATURES,
        "k": K,
        "layer": 3,
        "lm_name": "EleutherAI/pythia-70m-deduped",
        "submodule_name": "resid_post_layer_3",
    }
    write_json(root / repo / inside / "config.json", {"trainer": trainer, "buffer": {"ctx_len": 128}})
    asked = {"loader": _LOADED[kind], "repo": repo, "folder": inside} if kind in _LOADED else {}
    return Layout(
        "dictionary-learning",
        f"{repo}/{inside}",
        reference,
        "blocks.3.hook_resid_post",
        3,
        "EleutherAI/pythia-70m-deduped",
        K if kind == "AutoEncoderTopK" else None,
        asked,
    )


def _made(kind: str, threshold: float) -> tuple[dict[str, Any], Any]:
    e, d, be, bd = four(20 + CLASSES.index(kind))
    if kind == "GatedAutoEncoder":
        return _gated(e, d, bd)
    if kind in ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE"):
        return _direct(kind, e, d, be, bd, threshold)
    name = {"AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias"}.get(kind, "b_dec")
    state = {"encoder.weight": e, "encoder.bias": be, "decoder.weight": d.T.contiguous(), name: bd}
    if kind in ("AutoEncoderTopK", "BatchTopKSAE"):
        state |= {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    e, d, be, bd = doubles(e, d, be, bd)
    limit = float(torch.tensor(threshold))

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        acts = ((x if kind == "AutoEncoderNew" else x - bd) @ e.T + be).relu()
        if kind == "AutoEncoderTopK":
            acts = top_k(acts, K)
        if kind == "BatchTopKSAE":
            acts = acts * (acts > limit)
        return acts, acts @ d + bd

    return state, reference


def _gated(e: Tensor, d: Tensor, bd: Tensor) -> tuple[dict[str, Any], Any]:
    own = random(31, r=(FEATURES,), gate=(FEATURES,), magnitude=(FEATURES,))
    state = {
        "decoder_bias": bd,
        "encoder.weight": e,
        "r_mag": own["r"],
        "gate_bias": own["gate"],
        "mag_bias": own["magnitude"],
        "decoder.weight": d.T.contiguous(),
    }
    e, d, bd, r, gate, magnitude = doubles(e, d, bd, own["r"], own["gate"], own["magnitude"])

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        inner = (x - bd) @ e.T
        acts = (inner + gate > 0) * (r.exp() * inner + magnitude).relu()
        return acts, acts @ d + bd

    return state, reference


def _direct(
    kind: str, e: Tensor, d: Tensor, be: Tensor, bd: Tensor, threshold: float
) -> tuple[dict[str, Any], Any]:
    limits = thresholds(32) if kind == "JumpReluAutoEncoder" else torch.tensor(threshold)
    state = {"W_enc": e.T.contiguous(), "b_enc": be, "W_dec": d, "b_dec": bd, "threshold": limits}
    if kind != "JumpReluAutoEncoder":
        state |= {"k": torch.tensor(K), "group_sizes": torch.tensor([16, 48])}
    e, d, be, bd, limits = doubles(e, d, be, bd, limits)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = (x if kind == "JumpReluAutoEncoder" else x - bd) @ e.T + be
        acts = pre.relu() * (pre > limits)
        return acts, acts @ d + bd

    return state, reference
