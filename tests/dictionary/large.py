"""A dictionary of a million features that takes almost no disk space: sparse files with a few numbers in them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from monitor.dictionary.cards import statistics
from monitor.dictionary.cards.statistics import FeatureStatistics

FEATURES, WIDTH = 1 << 20, 4096


def write_sparse(path: Path, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]]) -> dict[str, int]:
    """Write a sparse safetensors file of these tensors, all zero. Gives the offset of each."""
    names = {torch.bfloat16: "BF16", torch.float32: "F32"}
    header: dict[str, object] = {}
    end = 0
    for name, (dtype, shape) in shapes.items():
        start = end
        end += dtype.itemsize * int(torch.tensor(shape, dtype=torch.int64).prod())
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return {name: 8 + len(text) + entry["data_offsets"][0] for name, entry in header.items()}  # type: ignore[index]


def patch(path: Path, offset: int, values: Tensor) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(values.contiguous().view(torch.uint8).numpy().tobytes())


def large_dictionary(folder: Path, chosen: list[int], *, turned: bool = True) -> tuple[Tensor, Tensor]:
    """JumpReLU, SAELens's layout (`turned`: W_enc is `[WIDTH, FEATURES]`) or sparsify's (`[FEATURES, WIDTH]`), in
    bfloat16, with statistics. Gives the chosen features' encoder and decoder rows.
    """
    draw = torch.Generator().manual_seed(0)
    encoder = torch.randn(len(chosen), WIDTH, generator=draw).bfloat16()
    decoder = torch.randn(len(chosen), WIDTH, generator=draw).bfloat16()
    folder.mkdir(parents=True)
    if turned:
        _saelens(folder, chosen, encoder, decoder)
    else:
        _llama_scope(folder, chosen, encoder, decoder)
    maximum, density = torch.ones(FEATURES), torch.full((FEATURES,), 1e-4)
    statistics.save(folder, FeatureStatistics(maximum, density, tokens=1000))
    return encoder.float(), decoder.float()


def _saelens(folder: Path, chosen: list[int], encoder: Tensor, decoder: Tensor) -> None:
    small, large = torch.float32, torch.bfloat16
    at = write_sparse(
        path := folder / "sae_weights.safetensors",
        {
            "W_enc": (large, (WIDTH, FEATURES)),
            "W_dec": (large, (FEATURES, WIDTH)),
            "b_enc": (small, (FEATURES,)),
            "b_dec": (small, (WIDTH,)),
            "threshold": (small, (FEATURES,)),
        },
    )
    for number, feature in enumerate(chosen):
        for row in range(WIDTH):
            patch(path, at["W_enc"] + 2 * (row * FEATURES + feature), encoder[number, row : row + 1])
        patch(path, at["W_dec"] + 2 * WIDTH * feature, decoder[number])
        patch(path, at["threshold"] + 4 * feature, torch.tensor([0.25]))
    config = {"d_in": WIDTH, "d_sae": FEATURES, "architecture": "jumprelu", "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(
        json.dumps({**config, "metadata": {"hook_name": "blocks.0.hook_resid_post"}})
    )


def _llama_scope(folder: Path, chosen: list[int], encoder: Tensor, decoder: Tensor) -> None:
    (folder / "checkpoints").mkdir()
    large = torch.bfloat16
    at = write_sparse(
        path := folder / "checkpoints" / "final.safetensors",
        {
            "encoder.weight": (large, (FEATURES, WIDTH)),
            "encoder.bias": (large, (FEATURES,)),
            "decoder.weight": (large, (WIDTH, FEATURES)),
            "decoder.bias": (large, (WIDTH,)),
        },
    )
    for number, feature in enumerate(chosen):
        for row in range(WIDTH):
            patch(path, at["decoder.weight"] + 2 * (row * FEATURES + feature), decoder[number, row : row + 1])
        patch(path, at["encoder.weight"] + 2 * WIDTH * feature, encoder[number])
    place = "blocks.0.hook_resid_post"
    config = {
        "hook_point_in": place,
        "hook_point_out": place,
        "act_fn": "jumprelu",
        "jump_relu_threshold": 0.25,
    }
    (folder / "hyperparams.json").write_text(json.dumps({**config, "norm_activation": "none"}))
