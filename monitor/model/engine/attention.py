"""Attention in passes of many requests, computed for each request by itself.

transformers' paged attention multiplies the queries of a pass by the keys and values of all of its requests, and adds
a mask. A mask cannot take out what is no number: NaN or infinity in one request's keys or values makes the outputs of
all requests NaN, because zero times NaN is NaN. Here every request attends to its own keys and values only.

That takes longer where many requests decode a token each. So a pass runs as transformers runs it, and runs once more,
apart, where it computed what is no number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from monitor.model.tap.span import Span

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
    ALL_ATTENTION_FUNCTIONS.register(_PREFIX + name, _Apart(inner, plain=name == "sdpa"))
    return _PREFIX + name


class Windows:
    """Keys and values in sliding windows that a pass overwrites, for a second run of the pass, which reads them.

    A layer with a sliding window keeps its last tokens in a ring, where several tokens of a prompt may overwrite what
    the first of them attends to. All else is written where nothing is read.
    """

    def __init__(self, cache: Any) -> None:
        """`cache`: the paged cache of transformers."""
        self._rings = [ring for ring in cache.cache_allocators.values() if hasattr(ring, "sliding_window")]
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []
        """Of each layer keys, or values: the whole ring, which places in it, and what was there."""

    def keep(self, inputs: Any, spans: Sequence[Span]) -> None:
        """Copy what the pass that is laid out in transformers' `inputs` overwrites, before it runs."""
        self._kept = []
        for ring in self._rings:
            if not any(_overwrites(span, ring.sliding_window) for span in spans):
                continue
            places = inputs.write_index_storage[ring.index, : inputs.true_write_sizes[ring.index]].clone()
            for held in (one for both in ring._kv_token_views.values() for one in both):
                self._kept.append((held, places, held.index_select(0, places)))

    def restore(self) -> None:
        """Put it back."""
        for held, places, values in self._kept:
            held.index_copy_(0, places, values)


def _overwrites(span: Span, window: int) -> bool:
    """True where tokens of a span overwrite a ring of `window` places that the first of them attends to."""
    return span.position > 0 and span.count > 1 and span.position + span.count > window


class _Held:
    """Stands for the paged cache where the keys and values of a request were read from it already."""

    def update(self, key_states: Tensor, value_states: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        """The keys and values, as they are."""
        return key_states, value_states


class _Apart:
    """An attention function that calls another one for each request of a pass."""

    def __init__(self, inner: _Attention, *, plain: bool) -> None:
        """`plain`: `inner` does nothing but scaled dot-product attention."""
        self._inner, self._plain = inner, plain

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
        edges = options["cu_seq_lens_q"].tolist()
        pasts = options["cu_seq_lens_k"].tolist()
        if len(edges) == 2:
            return self._inner(module, query, key, value, attention_mask, cache=_HELD, **options)[0], None
        out = []
        plain = self._plain and is_plain(options)
        for first, end, begin, stop in zip(edges, edges[1:], pasts, pasts[1:], strict=False):
            keys, values = key[:, :, begin:stop], value[:, :, begin:stop]
            mask = attention_mask[:, :, first:end, begin:stop]
            if plain and end - first == 1:
                out.append(attend_one(query[:, :, first:end], keys, values, mask, options.get("scaling")))
            else:
                rows = query[:, :, first:end]
                out.append(self._inner(module, rows, keys, values, mask, cache=_HELD, **options)[0])
        return torch.cat(out, dim=1), None


def is_plain(options: Mapping[str, Any]) -> bool:
    """Whether an attention with these options is scaled dot-product attention and nothing else."""
    return options.get("position_bias") is None and options.get("softcap") is None


def attend_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None) -> Tensor:
    """The output `[1, 1, heads, width]` of one query `[1, heads, 1, width]`, which is most of what is decoded.

    Heads that share keys and values stand as rows beside each other, so that nothing is repeated.
    """
    shared, heads = key.shape[1], query.shape[1]
    rows = query.reshape(1, shared, heads // shared, query.shape[3])
    found = scaled_dot_product_attention(rows, key, value, attn_mask=mask, scale=scale)
    return found.reshape(1, 1, heads, found.shape[3])


_HELD = _Held()
