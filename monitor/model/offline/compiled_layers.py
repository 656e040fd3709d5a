"""`CompiledLayers`: the decoder layers of a model, compiled, for reading much text of one shape."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from monitor.errors import ConfigurationError
from monitor.model.load.model import LoadedModel


class CompiledLayers:
    """Compiles the layers up to one with `torch.compile`, and puts them in place for single forward passes.

    Elementwise work is then fused, which in bfloat16 on a CPU is as much as the products. Results differ by rounding.
    The first pass, and every further shape, takes seconds to compile. Hooks on the layers run as they do otherwise.
    """

    def __init__(self, loaded: LoadedModel, last: int) -> None:
        """Raises ConfigurationError where the CPU has no C++ compiler."""
        if loaded.device.type == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
            raise ConfigurationError(
                "there is no C++ compiler to compile the layers with: install g++, or leave out --compile"
            )
        self._layers = list(loaded.layers[: last + 1])
        with warnings.catch_warnings():
            # Parts of torch that are imported now warn of other parts of torch.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._compiled: list[Callable[..., Any]] = [torch.compile(one.forward) for one in self._layers]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Forward passes within run the compiled layers; no other thread may run the model meanwhile."""
        for layer, forward in zip(self._layers, self._compiled, strict=True):
            layer.forward = forward
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward
