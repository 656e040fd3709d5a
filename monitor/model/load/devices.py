"""Find the device of each part of a model that accelerate has spread over several devices.

Layers are placed on the GPUs first, then on the CPU, then on the disk. Transformers does the placing; this module reads
the result from accelerate's hooks.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from monitor.errors import ModelError

SPREAD = "spread"
"""Value of the setting `device` that spreads the model over all devices."""


def need_accelerate() -> None:
    """Raise ModelError where accelerate is not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise ModelError(
            f"device {SPREAD!r} needs accelerate, which is not installed; `pip install 'sae-monitor[spread]'`, or "
            "write cpu or cuda where the model fits one device"
        )


def device_of(module: nn.Module) -> torch.device | None:
    """The device on which a module of a spread model computes; None where accelerate has no hook on it.

    Weights that are kept on the CPU or the disk are moved to another device to compute, so their own device is no
    answer.
    """
    for child in module.modules():
        for hook in _hooks(child):
            device = getattr(hook, "execution_device", None)
            if device is not None:
                return torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return None


def parts_of(model: Any) -> tuple[str, ...]:
    """Names of the devices that hold weights of a spread model, in order, such as `cuda:0`, `cpu` and `disk`.

    Empty where the model is not spread.
    """
    placed = list(dict.fromkeys(map(_name, (getattr(model, "hf_device_map", None) or {}).values())))
    return tuple(placed) if len(placed) > 1 or "disk" in placed else ()


def why_spread(model: Any) -> str:
    """Why continuous batching cannot run this model, as a phrase; empty where all weights are on one device."""
    if not (parts := parts_of(model)):
        return ""
    held = f"are spread over {', '.join(parts)}" if len(parts) > 1 else f"stay on the {parts[0]}"
    return f"its weights {held}, and continuous batching needs all of them on one device"


def _name(device: Any) -> str:
    return f"cuda:{device}" if isinstance(device, int) else str(device)


def _hooks(module: nn.Module) -> Iterator[Any]:
    """Hooks that accelerate put on a module. A sequential hook contains several."""
    hook = getattr(module, "_hf_hook", None)
    yield from (hook, *getattr(hook, "hooks", ()))
