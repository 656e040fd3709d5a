"""`LayerCache`: the residuals of several layers from one pass over the text, kept in a folder.

A sweep trains many dictionaries on the same text. The model reads it once, and every later run reads the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from monitor.model.load.hook_points import Place, hidden_of
from monitor.model.load.model import LoadedModel
from monitor.model.offline.residuals import Harvester


class LayerCache:
    """Residuals of each layer in bfloat16, one file for each batch of token ids."""

    def __init__(self, loaded: LoadedModel, layers: Sequence[int], folder: Path) -> None:
        self._loaded, self._layers, self._folder = loaded, tuple(layers), folder
        self._last = Harvester(loaded, max(layers))
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
            for file, found in zip(files, self._run(ids), strict=True):
                save_file({"residuals": found.to(torch.bfloat16).contiguous()}, file)
        return load_file(self._folder / f"{digest}-{layer}.safetensors")["residuals"]

    def _run(self, ids: Tensor) -> list[Tensor]:
        """The residuals of all layers, from one forward pass."""
        kept: dict[int, Tensor] = {}

        def keep(layer: int) -> Callable[..., None]:
            def hook(_module: object, _args: object, output: Any) -> None:
                kept[layer] = hidden_of(output)

            return hook

        sites = [(layer, self._loaded.site(Place(layer))) for layer in self._layers]
        handles = [
            site.register_forward_hook(keep(layer)) for layer, site in sites if layer != self._last.layer
        ]
        try:
            with torch.autocast(self._loaded.device.type, torch.bfloat16):
                kept[self._last.layer] = self._last.residuals(ids)
        finally:
            for handle in handles:
                handle.remove()
        return [kept[layer] for layer in self._layers]
