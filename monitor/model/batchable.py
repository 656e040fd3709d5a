"""Which models transformers' continuous batching cannot run, so that each of their passes runs one request.

Knows the private names and the configuration that tell, by family. Does not run anything.
"""

from __future__ import annotations

from typing import Any

from monitor.model.spreading import why_spread

_PAGED = {"full_attention", "sliding_attention"}
"""Kinds of layers that the paged cache has pages for."""
_KEYS_AND_VALUES = _PAGED | {"chunked_attention", "attention", "moe", "sparse", "dense"}
"""Kinds of layers that carry keys and values from token to token, or nothing."""


def why_not_batched(model: Any) -> str:
    """Why continuous batching cannot run this model; empty where it can.

    Attention that does not go through the library's attention interface ignores the paged cache: some of these
    families crash at the first decoded token, others run and silently read a wrong past. Recurrent layers keep what
    no page holds. The cache itself lies on one device.
    """
    if why := why_spread(model):
        return why
    name, config = type(model).__name__, model.config.get_text_config()
    if recurrent(model):
        return (
            f"{name} has recurrent layers, whose state the paged cache of continuous batching does not hold"
        )
    if unknown := kinds_of(model) - _PAGED:
        return f"{name} has layers ({', '.join(sorted(unknown))}) that the paged cache of continuous batching lacks"
    if not getattr(model, "_supports_attention_backend", False):
        return f"the attention of {name} cannot read the paged cache of continuous batching"
    if getattr(config, "kv_lora_rank", None) is not None:
        return (
            f"the keys and values of {name} (latent attention) have widths that the paged cache does not hold"
        )
    return ""


def recurrent(model: Any) -> bool:
    """True where some layer carries more from token to token than keys and values."""
    return bool(getattr(model, "_is_stateful", False)) or not kinds_of(model) <= _KEYS_AND_VALUES


def kinds_of(model: Any) -> set[str]:
    """The kinds of layers that the configuration lists; empty where all are of one kind."""
    return set(getattr(model.config.get_text_config(), "layer_types", None) or ())
