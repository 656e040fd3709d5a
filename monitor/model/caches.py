"""The cache that a model makes for one sequence: what its forward pass calls it, and how many tokens fit.

Knows signatures and tensors. Does not know requests or passes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from monitor.errors import ModelError

_NAMES = ("past_key_values", "cache_params", "state")
"""What families call the past, in the arguments and in the results of a pass."""
_SHARE = 0.5
"""Of an accelerator's free memory, for caches; growing one copies a layer of it, and passes need room too."""


def cache_name(model: Any) -> str:
    """What the model's forward pass calls the past. ModelError where it takes none."""
    accepted = inspect.signature(model.forward).parameters
    for name in _NAMES:
        if name in accepted:
            return name
    raise ModelError(
        f"the forward pass of {type(model).__name__} takes no cache ({', '.join(_NAMES)}); it cannot generate"
    )


def tokens_that_fit(cache: Any, held: int, most: int) -> int:
    """How many tokens can be cached where the cache of `held` tokens lies; `most` where that is no accelerator."""
    sizes: dict[torch.device, int] = {}
    for tensor in _tensors(cache):
        if tensor.is_cuda:
            sizes[tensor.device] = sizes.get(tensor.device, 0) + tensor.nbytes
    fits = (_SHARE * torch.cuda.mem_get_info(device)[0] * held / size for device, size in sizes.items())
    return int(min([most, *fits]))


def _tensors(cache: Any) -> Iterator[Tensor]:
    for layer in getattr(cache, "layers", ()):
        yield from (value for value in vars(layer).values() if isinstance(value, Tensor))
