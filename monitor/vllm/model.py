"""A model without its weights: what the engine needs to know of a model that vLLM runs."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from monitor.errors import ModelError
from monitor.model.engine.cache_room import room_on
from monitor.model.engine.paged import Limits
from monitor.model.load.hook_points import Side
from monitor.model.load.model import LoadedModel
from monitor.model.runtime import LoadedPair

_BLOCK = 128
"""Most tokens of a block of vLLM's cache."""


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


def cache_bytes(loaded: LoadedModel, limits: Limits, ranks: int = 1) -> int | None:
    """Bytes for keys and values on each of the ranks, which share the heads; None: what vLLM finds free on devices."""
    if loaded.device.type != "cpu" and limits.cache_tokens is None:
        return None
    config = loaded.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = -(-heads // ranks)
    token = 2 * config.num_hidden_layers * heads * head * loaded.dtype.itemsize
    room = room_on(loaded.device, token, memory=limits.memory)
    tokens = room.tokens(limits.running, loaded.context, limits.cache_tokens)
    # Blocks are given whole, and one is vLLM's own.
    return int(token * (tokens + _BLOCK * (limits.running + 1)))
