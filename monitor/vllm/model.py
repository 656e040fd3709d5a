"""A model without its weights: what the engine needs to know of a model that vLLM runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from monitor.errors import ModelError
from monitor.model.load.hook_points import Side
from monitor.model.load.model import LoadedModel
from monitor.model.runtime import LoadedPair


@dataclass(frozen=True)
class WeightlessModel(LoadedModel):
    """A loaded model whose weights were let go. Its structure, tokenizer and digest stay."""

    def device_of(self, module: nn.Module) -> torch.device:
        """The device on which vLLM computes the module."""
        return self.device


def without_weights(pair: LoadedPair) -> LoadedPair:
    """The pair with its model's weights let go, for vLLM to load them instead.

    The context is one token shorter: the last token that is drawn is never run, and vLLM counts it.
    Raises ModelError where the dictionary reads what vLLM does not keep apart.
    """
    if pair.place.point or pair.place.side is not Side.OUTPUT:
        raise ModelError(
            f"the dictionary reads {pair.place}; inside vLLM only the residual stream after a layer "
            "(blocks.N.hook_resid_post) can be tapped. Use the built-in engine"
        )
    loaded = pair.loaded
    kept: dict[str, Any] = {f.name: getattr(loaded, f.name) for f in fields(loaded) if f.init}
    loaded.model.to("meta")
    if loaded.device.type == "cuda":
        torch.cuda.empty_cache()
    return replace(pair, loaded=WeightlessModel(**(kept | {"context": loaded.context - 1})))
