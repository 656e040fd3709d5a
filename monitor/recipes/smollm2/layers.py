"""The residuals of several layers from one pass of the model; `LayerCache` keeps them in a folder.

A sweep trains many dictionaries on the same text. The model reads it once, and every later run reads the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monitor.model.load.hook_points import Place, hidden_of
from monitor.model.load.model import LoadedModel
from monitor.model.offline.compiled_layers import CompiledLayers
from monitor.model.offline.residuals import Harvester


class LayerCache:
    """Residuals of each layer in bfloat16, one file for each batch of token ids."""

    def __init__(
        self, loaded: LoadedModel, layers: Sequence[int], folder: Path, *, compile: bool = False
    ) -> None:
        self._loaded, self._layers, self._folder = loaded, tuple(layers), folder
        self._compiled = CompiledLayers(loaded, max(layers)) if compile else None
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, layer: int) -> Callable[[Tensor], Tensor]:
        """A function from token ids `[rows, length]` to the residuals `[rows, length, d]` behind the layer."""

        def residuals(ids: Tensor) -> Tensor:
            return self._read(ids, layer).float()

        return residuals

    def _read(self, ids: Tensor, layer: int) -> Tensor:
        digest = hashlib.sha256(ids.numpy().tobytes()).hexdigest()[:24]
        files = [self._folder / f"{digest}-{number}.safetensors" for number in self._layers]
        if not all(file.exists() for file in files):
            with self._compiled.in_place() if self._compiled is not None else nullcontext():
                read = residuals_of_layers(self._loaded, self._layers, ids)
            for file, found in zip(files, read, strict=True):
                save_file({"residuals": found.to(torch.bfloat16).contiguous()}, file)
        return load_file(self._folder / f"{digest}-{layer}.safetensors")["residuals"]


def residuals_of_layers(
    loaded: LoadedModel, layers: Sequence[int], ids: Tensor, lengths: Sequence[int] | None = None
) -> list[Tensor]:
    """Residuals `[rows, length, d_model]` behind each layer, from one forward pass under autocast to bfloat16.

    `ids` is `[rows, length]`; `lengths` are those of the texts where rows are padded on the right.
    """
    kept: dict[int, Tensor] = {}
    last = Harvester(loaded, max(layers))

    def keep(layer: int) -> Callable[..., None]:
        def hook(_module: object, _args: object, output: Any) -> None:
            kept[layer] = hidden_of(output)

        return hook

    earlier = [(layer, loaded.site(Place(layer))) for layer in layers if layer != last.layer]
    handles = [site.register_forward_hook(keep(layer)) for layer, site in earlier]
    try:
        with torch.autocast(loaded.device.type, torch.bfloat16):
            kept[last.layer] = last.residuals(ids, lengths)
    finally:
        for handle in handles:
            handle.remove()
    return [kept[layer] for layer in layers]
