"""Checkpoints of the families that publish pickled files; see `layouts`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.dictionary.formats.layouts import FEATURES, Layout, doubles, four, top_k, write_pickle


def goodfire(root: Path) -> Layout:
    e, d, be, bd = four(8)
    repo, file = "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"
    state = {
        "encoder_linear.weight": e,
        "encoder_linear.bias": be,
        "decoder_linear.weight": d.T.contiguous(),
        "decoder_linear.bias": bd,
    }
    write_pickle(root / repo / file, state)
    asked = {"loader": "goodfire", "repo": repo, "folder": file}
    return _plain_relu(
        "goodfire", f"{repo}/{file}", (e, d, be, bd), 19, "meta-llama/Llama-3.1-8B-Instruct", asked
    )


def qresearch(root: Path) -> Layout:
    e, d, be, bd = (tensor.bfloat16() for tensor in four(9))
    repo = "qresearch/DeepSeek-R1-Distill-Llama-8B-SAE-l19"
    file = "DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt"
    state = {"encoder.weight": e, "encoder.bias": be, "decoder.weight": d.T.contiguous(), "decoder.bias": bd}
    write_pickle(root / repo / file, state)
    asked = {"loader": "deepseek_r1", "repo": repo, "folder": file}
    name = "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
    return _plain_relu("qresearch", f"{repo}/{file}", (e, d, be, bd), 19, name, asked)


def _plain_relu(
    family: str, source: str, four: tuple[Tensor, ...], layer: int, model: str, asked: dict[str, Any]
) -> Layout:
    e, d, be, bd = doubles(*four)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        acts = (x @ e.T + be).clamp_min(0)
        return acts, acts @ d + bd

    return Layout(family, source, reference, f"blocks.{layer}.hook_resid_post", layer, model, sae_lens=asked)


def qwen_scope(root: Path) -> Layout:
    e, d, be, bd = four(10)
    repo, file, k = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50", "layer12.sae.pt", 50
    write_pickle(root / repo / file, {"W_enc": e, "W_dec": d.T.contiguous(), "b_enc": be, "b_dec": bd})
    write_pickle(
        root / repo / "layer13.sae.pt", {"W_enc": d, "W_dec": e.T.contiguous(), "b_enc": be, "b_dec": bd}
    )
    e, d, be, bd = doubles(e, d, be, bd)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        acts = top_k(x @ e.T + be, k)
        return acts, acts @ d + bd

    asked = {"loader": "qwen_scope", "repo": repo, "folder": file}
    return Layout(
        "qwen-scope", f"{repo}/{file}", reference, "model.layers.12", 12, "Qwen/Qwen3-1.7B-Base", k, asked
    )


def openai(root: Path, kind: str = "TopK") -> Layout:
    e, d, be, bd = four(11)
    state: dict[str, Any] = {
        "pre_bias": bd,
        "latent_bias": be,
        "encoder.weight": e,
        "decoder.weight": d.T.contiguous(),
        "stats_last_nonzero": torch.zeros(FEATURES, dtype=torch.int64),
        "latents_activation_frequency": torch.ones(FEATURES),
        "latents_mean_square": torch.zeros(FEATURES),
        "activation": kind,
    }
    k = 12 if kind == "TopK" else None
    if kind == "TopK":
        state["activation_state_dict"] = {"k": k, "postact_fn": "ReLU"}
    version = "_v5_32k" if kind == "TopK" else ""
    source = f"openai/gpt2-small/resid_post_mlp{version}/autoencoders/8.pt"
    write_pickle(root / source, state)
    e, d, be, bd = doubles(e, d, be, bd)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        shift, std = 0.0, 1.0
        if kind == "TopK":
            shift = x.mean(-1, keepdim=True)
            x = x - shift
            std = x.std(-1, keepdim=True)
            x = x / (std + 1e-5)
        pre = (x - bd) @ e.T + be
        acts = top_k(pre, k) if k is not None else pre.relu()
        return acts, (acts @ d + bd) * std + shift

    return Layout("openai", source, reference, "blocks.8.hook_resid_post", 8, "openai-community/gpt2", k=k)
