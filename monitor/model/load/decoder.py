"""Find the decoder layers of a causal language model, in any family of transformers.

All families keep them in a list with as many modules as the text configuration has layers. Encoders for images or
sound are skipped.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from monitor.errors import ModelError
from monitor.model.load.devices import device_of

_NORM = re.compile(r"norm|\bln", re.IGNORECASE)
_CONTEXT_NAMES = ("max_position_embeddings", "max_seq_len", "seq_length")
_USUAL_CONTEXT = 2048
_UNLIMITED = 1 << 30
"""Tokenizers without a limit report a number with thirty digits; anything above this counts as no limit."""


def text_config(model: Any) -> Any:
    """The configuration of the text decoder: the model's own, or a multimodal wrapper's text part."""
    return model.config.get_text_config()


def decoder_layers(model: Any) -> nn.ModuleList:
    """The text decoder's layers, in order.

    This is the outermost `nn.ModuleList` with as many modules as the text configuration has layers. Encoders for images
    or sound are models of their own inside the model, with another kind of configuration, and are skipped. Raises
    ModelError where there is no such list.
    """
    if getattr(model.config, "is_encoder_decoder", False):
        raise ModelError(
            f"{type(model).__name__} is an encoder with a decoder; only decoder-only language models can be tapped"
        )
    count = int(text_config(model).num_hidden_layers)
    found = [
        (path.count("."), module)
        for path, module in _text_modules(model, "")
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not found:
        raise ModelError(
            f"{type(model).__name__} has no list of {count} decoder layers; this kind of model cannot be tapped"
        )
    return min(found, key=lambda item: item[0])[1]


def context_of(model: Any, tokenizer: Any) -> int:
    """Maximum number of tokens of one sequence, as the model says, or else its tokenizer."""
    config = text_config(model)
    for name in _CONTEXT_NAMES:
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    limit = getattr(tokenizer, "model_max_length", None)
    return int(limit) if isinstance(limit, int) and 0 < limit < _UNLIMITED else _USUAL_CONTEXT


@torch.no_grad()
def subtracts_mean(layer: nn.Module, width: int) -> bool:
    """True where the first norm of a layer gives the same for a vector with a number added to all of its entries."""
    norm = next((m for name, m in layer.named_children() if _NORM.search(f"{name} {type(m).__name__}")), None)
    if norm is None:
        return False
    stored = next(layer.parameters())
    # Weights of a spread model may stay on the disk until its hooks move them to the device that computes.
    device = device_of(norm) or (torch.device("cpu") if stored.is_meta else stored.device)
    x = torch.linspace(-1, 1, width).square()[None].to(device, stored.dtype)
    return bool(torch.allclose(norm(x), norm(x + 1), atol=0.05))


def _text_modules(module: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    """Every module below `module` with its path, without encoders for images or sound."""
    found: list[tuple[str, nn.Module]] = []
    wanted = type(text_config(module))

    def walk(parent: nn.Module, path: str) -> None:
        for name, child in parent.named_children():
            if _is_model(child) and type(text_config(child)) is not wanted:
                continue
            here = f"{path}.{name}" if path else name
            found.append((here, child))
            walk(child, here)

    walk(module, path)
    return found


def _is_model(module: nn.Module) -> bool:
    return hasattr(getattr(module, "config", None), "get_text_config")
