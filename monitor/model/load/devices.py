"""A model that is too large for one device, spread over several: GPUs first, then the CPU, then the disk.

Knows what accelerate's hooks say about where a module computes. Does not load models, and asks accelerate for
nothing: transformers does.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from monitor.errors import ModelError

SPREAD = "spread"
"""The name of a device that is all of them."""


def need_accelerate() -> None:
    """ModelError where the library that spreads models is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise ModelError(
            f"device {SPREAD!r} needs accelerate, which is not installed; `pip install 'sae-monitor[spread]'`, or "
            "write cpu or cuda where the model fits one device"
        )


def device_of(module: nn.Module) -> torch.device | None:
    """Where a module of a spread model computes; None where no hook of accelerate decides that.

    Weights that lie on the CPU or the disk have another device than their computation.
    """
    for child in module.modules():
        for hook in _hooks(child):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None


def parts_of(model: Any) -> tuple[str, ...]:
    """The devices that hold weights of a spread model, `disk` among them, in order; empty where it is not spread."""
    placed = list(dict.fromkeys(map(_name, (getattr(model, "hf_device_map", None) or {}).values())))
    return tuple(placed) if len(placed) > 1 or "disk" in placed else ()


def why_spread(model: Any) -> str:
    """Why continuous batching cannot run this model; empty where it lies on one device."""
    if not (parts := parts_of(model)):
        return ""
    held = f"are spread over {', '.join(parts)}" if len(parts) > 1 else f"stay on the {parts[0]}"
    return f"its weights {held}, and continuous batching needs all of them on one device"


def _name(device: Any) -> str:
    return f"cuda:{device}" if isinstance(device, int) else str(device)


def _hooks(module: nn.Module) -> Iterator[Any]:
    """Of accelerate; several stand in one that calls them in turn."""
    hook = getattr(module, "_hf_hook", None)
    yield from (hook, *getattr(hook, "hooks", ()))
