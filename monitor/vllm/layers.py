"""The decoder layers of a model as vLLM builds it, found by structure, and the tap behind them.

The layers of most families return `(hidden_states, residual)`, whose sum is the residual stream; those of others return
the stream itself.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from monitor.errors import ModelError
from monitor.vllm.operator import TappedModel, call_tap, take_seat


def decoder_layers_of(model: nn.Module, count: int) -> nn.ModuleList:
    """The text decoder's layers: the outermost list of `count` modules. Raises ModelError where none or several fit."""
    found = [
        (path.count("."), path, module)
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and not _sees(path)
    ]
    name = type(model).__name__
    if not found:
        raise ModelError(f"{name} has no list of {count} decoder layers in vLLM; it cannot be tapped there")
    depth = min(found, key=lambda item: item[0])[0]
    outermost = [item for item in found if item[0] == depth]
    if len(outermost) > 1:
        paths = ", ".join(path for _, path, _ in outermost)
        raise ModelError(
            f"{name} has several lists of {count} layers in vLLM ({paths}); it cannot be tapped there"
        )
    return outermost[0][2]


def install(model: nn.Module, count: int, seat: TappedModel) -> None:
    """Call the tap behind its layers. To be done before the model is compiled. Raises ModelError."""
    layers, number = decoder_layers_of(model, count), take_seat(seat)
    for layer in (seat.layer, *seat.later_layers):
        if type(layers[layer]).__name__ == "PPMissingLayer":
            raise ModelError(
                "pipeline parallelism is not supported with the monitor; use pipeline_parallel_size 1"
            )
        layers[layer].register_forward_hook(_hook(number, layer))


def _hook(seat: int, layer: int) -> Any:
    def tap(_module: nn.Module, _args: object, output: Any) -> None:
        call_tap(*stream_of(output), seat, layer)

    return tap


def stream_of(output: Any) -> tuple[Tensor, Tensor | None]:
    """What a layer returned, as `hidden` and `residual`; see `call_tap`. Raises ModelError for anything else."""
    if isinstance(output, Tensor):
        return output, None
    if isinstance(output, tuple) and len(output) == 2 and all(isinstance(part, Tensor) for part in output):
        return output[0], output[1]
    raise ModelError(
        "a decoder layer returns neither the residual stream nor its two parts; it cannot be tapped"
    )


def _sees(path: str) -> bool:
    """True for a list of layers of an encoder for images or sound."""
    return any(part.startswith(("vision", "visual", "audio", "image")) for part in path.split("."))
