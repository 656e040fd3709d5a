"""Checkpoints of Llama Scope and what its makers published after it; see `layouts`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tests.dictionary.formats.layouts import (
    FEATURES,
    WIDTH,
    Layout,
    doubles,
    four,
    thresholds,
    top_k,
    write_json,
    write_safetensors,
)


def llama_scope(root: Path, *, by_norm: bool = False, subtract: bool = False) -> Layout:
    """The checkpoint's own arithmetic: scale the input, encode, gate on the activation of the unscaled input."""
    e, d, be, bd = (tensor.bfloat16() for tensor in four(3))
    threshold, mean_norm = 0.5234375, 3.25
    repo, inside = "fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x"
    tensors = {"encoder.weight": e, "encoder.bias": be, "decoder.weight": d.T, "decoder.bias": bd}
    write_safetensors(root / repo / inside / "checkpoints" / "final.safetensors", tensors)
    stated = {
        "d_model": WIDTH,
        "d_sae": FEATURES,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "jump_relu_threshold": threshold,
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": mean_norm, "out": mean_norm},
        "use_decoder_bias": True,
        "apply_decoder_bias_to_pre_encoder": subtract,
        "sparsity_include_decoder_norm": by_norm,
        "top_k": 50,
    }
    write_json(root / repo / inside / "hyperparams.json", stated)
    e, d, be, bd = doubles(e, d, be, bd)
    scale = WIDTH**0.5 / mean_norm

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = (x * scale - (bd if subtract else 0)) @ e.T + be
        strength = pre * d.norm(dim=-1) if by_norm else pre
        acts = pre.relu() * (strength / scale > threshold)
        return acts, (acts @ d + bd) / scale

    asked = {"loader": "llama_scope", "repo": repo, "folder": inside, "fold": scale}
    return Layout(
        "llama-scope",
        f"{repo}/{inside}",
        reference,
        "blocks.15.hook_resid_post",
        15,
        "meta-llama/Llama-3.1-8B",
        sae_lens={} if by_norm or subtract else asked,
    )


def llama_scope_r1(root: Path) -> Layout:
    e, d, be, bd = four(4)
    t, mean_norm = thresholds(4), 2.5
    repo, inside = "fnlp/Llama-Scope-R1-Distill", "400M-Slimpajama-400M-OpenR1-Math-220k/L15R"
    tensors = {
        "encoder.weight": e,
        "encoder.bias": be,
        "decoder.weight": d.T,
        "decoder.bias": bd,
        "log_jumprelu_threshold": t.log(),
    }
    write_safetensors(root / repo / inside / "sae_weights.safetensors", tensors)
    stated = {
        "sae_type": "sae",
        "d_model": WIDTH,
        "expansion_factor": FEATURES // WIDTH,
        "hook_point_in": "blocks.15.hook_resid_post",
        "hook_point_out": "blocks.15.hook_resid_post",
        "act_fn": "jumprelu",
        "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": mean_norm, "out": mean_norm},
    }
    write_json(root / repo / inside / "config.json", stated)
    scale = WIDTH**0.5 / mean_norm
    t = t.log().exp()
    e, d, be, bd, t = doubles(e, d, be, bd, t)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = (x * scale) @ e.T + be
        acts = pre.relu() * (pre > t)
        return acts, (acts @ d + bd) / scale

    asked = {"loader": "llama_scope_r1_distill", "repo": repo, "folder": inside, "fold": scale}
    return Layout(
        "llamascopium", f"{repo}/{inside}", reference, "blocks.15.hook_resid_post", 15, sae_lens=asked
    )


def llamascopium(root: Path, act_fn: str = "jumprelu") -> Layout:
    e, d, be, bd = four(5)
    t, mean_norm, hook, k = thresholds(5), 5.0, "blocks.3.hook_resid_post", 7
    folder = f"OpenMOSS-Team/some-{act_fn}/L3R"
    tensors = {
        "W_E": e.T,
        "b_E": be,
        "W_D": d,
        "b_D": bd,
        f"dataset_average_activation_norm.{hook}": torch.tensor(mean_norm),
    }
    if act_fn == "jumprelu":
        tensors["activation_function.log_jumprelu_threshold"] = t.log()
    write_safetensors(root / folder / "sae_weights.safetensors", tensors)
    stated = {
        "sae_type": "sae",
        "d_model": WIDTH,
        "expansion_factor": FEATURES // WIDTH,
        "hook_point_in": hook,
        "hook_point_out": hook,
        "act_fn": act_fn,
        "top_k": k,
        "norm_activation": "dataset-wise",
        "sparsity_include_decoder_norm": True,
        "use_decoder_bias": True,
    }
    write_json(root / folder / "config.json", stated)
    scale = WIDTH**0.5 / mean_norm
    e, d, be, bd, t = doubles(e, d, be, bd, t.log().exp())

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        norms = d.norm(dim=-1)
        strength = ((x * scale) @ e.T + be) * norms
        if act_fn == "topk":
            acts = top_k(strength, k) / norms
        else:
            acts = strength.relu() * (strength > (t if act_fn == "jumprelu" else 0)) / norms
        return acts, (acts @ d + bd) / scale

    return Layout("llamascopium", folder, reference, hook, 3, k=k if act_fn == "topk" else None)
