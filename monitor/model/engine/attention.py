"""Attention in passes of many requests, computed for each request by itself.

transformers' paged attention multiplies the queries of a pass by the keys and values of all of its requests, and adds
a mask. A mask cannot take out what is no number: NaN or infinity in one request's keys or values would make the
outputs of all requests NaN, because zero times NaN is NaN. Here every request attends to its own keys and values only,
so what it computes also costs nothing for the others' and is rounded as if it ran alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

_DENSE = ("sdpa", "paged|eager")
"""The implementations that multiply everything by everything."""
_PREFIX = "each_apart|"

_Attention = Callable[..., tuple[Tensor, Tensor | None]]


def each_apart(name: str) -> str:
    """The name under which an attention implementation of transformers runs for each request by itself.

    It is registered with transformers. Implementations that keep requests apart themselves keep their name.
    """
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if name not in _DENSE:
        return name
    inner: _Attention = ALL_ATTENTION_FUNCTIONS[name]
    ALL_ATTENTION_FUNCTIONS.register(_PREFIX + name, _Apart(inner))
    return _PREFIX + name


class _Held:
    """Stands for the paged cache where the keys and values of a request were read from it already."""

    def update(self, key_states: Tensor, value_states: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        """The keys and values, as they are."""
        return key_states, value_states


class _Apart:
    """An attention function that calls another one for each request of a pass."""

    def __init__(self, inner: _Attention) -> None:
        self._inner = inner

    def __call__(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        cache: Any,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Outputs `[1, tokens, heads, width]` of queries `[1, heads, tokens, width]`.

        Keys and values are those of the pass's tokens; the past is read from the cache.
        """
        key, value = cache.update(
            key_states=key, value_states=value, layer_idx=module.layer_idx, kwargs=options
        )
        if attention_mask is None:
            raise ValueError("paged attention without a flash kernel needs a mask")
        parts = [
            self._inner(
                module,
                query[:, :, rows],
                key[:, :, past],
                value[:, :, past],
                attention_mask[:, :, rows, past],
                cache=_Held(),
                **options,
            )[0]
            for rows, past in zip(
                _parts(options["cu_seq_lens_q"]), _parts(options["cu_seq_lens_k"]), strict=True
            )
        ]
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0], None


def _parts(bounds: Tensor) -> Sequence[slice]:
    """The stretch of each request, from cumulative lengths `[requests + 1]`."""
    edges = bounds.tolist()
    return [slice(first, end) for first, end in itertools.pairwise(edges)]
