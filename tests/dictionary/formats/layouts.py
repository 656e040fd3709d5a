"""Checkpoints of every family, in the layout of their repositories, with random weights and the family's arithmetic.

Each function writes below a root as a repository `org/name/…` and gives what the family's own code would compute,
written out in float64 from its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, FEATURES = 16, 64
Reference = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Residuals `[rows, WIDTH]` in float64 → activations and reconstruction."""


@dataclass(frozen=True)
class Layout:
    """A checkpoint that lies somewhere below a root."""

    family: str
    source: str
    """Folder or file, relative to the root; as a hub repository it is the same."""
    reference: Reference
    hook: str | None = None
    layer: int | None = None
    model: str | None = None
    k: int | None = None
    sae_lens: dict[str, Any] = field(default_factory=dict)
    """How the real SAELens is asked for it: loader, repository, folder, and `fold` where it leaves a scale out."""


def random(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: 0.6 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def four(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder and decoder `[FEATURES, WIDTH]`, their biases."""
    found = random(seed, e=(FEATURES, WIDTH), d=(FEATURES, WIDTH), be=(FEATURES,), bd=(WIDTH,))
    return found["e"], found["d"], found["be"], found["bd"]


def doubles(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(tensor.double() for tensor in tensors)


def thresholds(seed: int) -> Tensor:
    return torch.rand(FEATURES, generator=torch.Generator().manual_seed(seed)) + 0.2


def top_k(pre: Tensor, k: int) -> Tensor:
    """Relu of the k largest of each row, zero elsewhere."""
    kept = torch.zeros_like(pre)
    for row in range(len(pre)):
        best = pre[row].argsort(descending=True)[:k]
        kept[row, best] = pre[row, best].clamp_min(0)
    return kept


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def write_pickle(path: Path, state: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def gemma_scope(root: Path, *, compressed: bool = False) -> Layout:
    e, d, be, bd = four(1)
    t = thresholds(1)
    folder = "google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71"
    (root / folder).mkdir(parents=True)
    arrays = {"W_enc": e.T, "W_dec": d, "b_enc": be, "b_dec": bd, "threshold": t}
    save = np.savez_compressed if compressed else np.savez
    save(root / folder / "params.npz", **{name: array.contiguous().numpy() for name, array in arrays.items()})
    e, d, be, bd, t = doubles(e, d, be, bd, t)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ e.T + be
        acts = pre.relu() * (pre > t)
        return acts, acts @ d + bd

    asked = {"loader": "gemma_2", "repo": "google/gemma-scope-2b-pt-res", "folder": folder.split("/", 2)[2]}
    return Layout(
        "gemma-scope", folder, reference, "blocks.20.hook_resid_post", 20, "google/gemma-2-2b", sae_lens=asked
    )


def gemma_scope_2(root: Path, *, config: bool = True) -> Layout:
    e, d, be, bd = four(2)
    t = thresholds(2)
    repo, inside = "google/gemma-scope-2-1b-pt", "resid_post/layer_13_width_16k_l0_medium"
    folder = root / repo / inside
    tensors = {"w_enc": e.T, "w_dec": d, "b_enc": be, "b_dec": bd, "threshold": t}
    write_safetensors(folder / "params.safetensors", tensors)
    if config:
        stated = {
            "model_name": "gemma-v3-1b-pt",
            "width": FEATURES,
            "architecture": "jump_relu",
            "l0": 60,
            "affine_connection": False,
            "type": "sae",
            "hf_hook_point_in": "model.layers.13.output",
            "hf_hook_point_out": "model.layers.13.output",
        }
        write_json(folder / "config.json", stated)
    e, d, be, bd, t = doubles(e, d, be, bd, t)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = x @ e.T + be
        acts = (pre > t) * pre.relu()
        return acts, acts @ d + bd

    asked = {"loader": "gemma_3", "repo": repo, "folder": inside}
    model = "google/gemma-3-1b-pt"
    return Layout(
        "gemma-scope-2",
        f"{repo}/{inside}",
        reference,
        "blocks.13.hook_resid_post",
        13,
        model,
        sae_lens=asked,
    )


def sparsify(root: Path, activation: str = "topk") -> Layout:
    e, d, be, bd = four(6)
    repo, inside, k = f"EleutherAI/sae-llama-3-8b-{activation}", "layers.10", 8
    tensors = {"encoder.weight": e, "encoder.bias": be, "W_dec": d, "b_dec": bd}
    write_safetensors(root / repo / inside / "sae.safetensors", tensors)
    stated = {
        "activation": activation,
        "expansion_factor": FEATURES // WIDTH,
        "normalize_decoder": False,
        "num_latents": 0,
        "k": k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": WIDTH,
    }
    write_json(root / repo / inside / "cfg.json", stated)
    run = {"model": "meta-llama/Meta-Llama-3-8B", "ctx_len": 2048, "dataset": "a corpus"}
    write_json(root / repo / "config.json", run)
    e, d, be, bd = doubles(e, d, be, bd)

    def reference(x: Tensor) -> tuple[Tensor, Tensor]:
        pre = ((x - bd) @ e.T + be).relu()
        if activation == "topk":
            acts = top_k(pre, k)
        else:
            acts = torch.zeros_like(pre)
            size = FEATURES // k
            for row in range(len(pre)):
                for group in range(k):
                    best = group * size + int(pre[row, group * size : (group + 1) * size].argmax())
                    acts[row, best] = pre[row, best]
        return acts, acts @ d + bd

    # SAELens 6.54 turns W_dec, which is stored as it wants it, and then refuses its shape: `turned` undoes that.
    asked = {"loader": "sparsify", "repo": repo, "folder": inside, "turned": True}
    model = "meta-llama/Meta-Llama-3-8B"
    return Layout("sparsify", f"{repo}/{inside}", reference, "layers.10", 10, model, k, asked)
