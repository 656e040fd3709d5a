"""Ragged passes: tokens that continue many sequences of different lengths, in one forward pass to the tapped layer.

All tokens of a pass stand in one row, so that everything but attention is computed for all of them at once. Attention
is computed for each sequence by itself, over its own keys and values: what is no number in one reaches no other.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from monitor.model.engine.attention import attend_one, is_plain
from monitor.model.engine.chunks import Chunks
from monitor.model.load.model import LoadedModel
from monitor.model.tap.tap import LayerReached

_NAME = "ragged"
"""Of the attention implementation, as transformers knows it."""
_FIRST = 64
"""Tokens for which keys and values have room at first; doubled when they do not suffice."""
_REHEARSED = ((9, 1, 6), (3, 1, 1, 1), (17, 5))
"""Tokens of the parts in which three sequences are run at the start, beside each of them whole."""
_APART = {torch.float32: 1e-2, torch.float64: 1e-3}
"""Largest relative difference between residuals read in parts and whole."""
_APART_ELSE = 0.1

_Attention = Callable[..., tuple[Tensor, Any]]


class KeysValues:
    """Keys and values of one sequence, by layer. What stands behind its `tokens` may be overwritten."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def put(self, layer: int, position: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write those of tokens from a position on, `[1, heads, tokens, width]`; all up to the last of them."""
        end = position + keys.shape[2]
        held = self._layers.get(layer)
        if held is None or held[0].shape[2] < end:
            held = self._layers[layer] = (_grown(held, 0, keys, end), _grown(held, 1, values, end))
        held[0][:, :, position:end] = keys
        held[1][:, :, position:end] = values
        return held[0][:, :, :end], held[1][:, :, :end]

    @property
    def bytes(self) -> int:
        """Of memory."""
        return sum(part.nbytes for held in self._layers.values() for part in held)

    @property
    def room(self) -> int:
        """Tokens that fit without more memory."""
        return max((held[0].shape[2] for held in self._layers.values()), default=0)


def _grown(held: tuple[Tensor, Tensor] | None, which: int, new: Tensor, end: int) -> Tensor:
    """A tensor with room for `end` tokens, which begins with what is held."""
    room = max(_FIRST, 2 * (held[which].shape[2] if held is not None else 0), end)
    found = new.new_zeros(new.shape[0], new.shape[1], room, new.shape[3])
    if held is not None:
        found[:, :, : held[which].shape[2]] = held[which]
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Continuation:
    """Consecutive tokens of a sequence, in a pass."""

    past: KeysValues
    position: int
    """Of the first of them in the sequence."""
    ids: Sequence[int]


@dataclass(slots=True)
class _RunningPass:
    stretches: Sequence[Continuation]
    inner: _Attention | None
    """None: the one that the model's own module defines."""
    masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)
    """By the arguments of `_mask`: they are the same in many layers."""


@dataclass
class RaggedPasses:
    """Ragged passes of one model. `why_separate` says why its sequences must run one by one; empty where not."""

    loaded: LoadedModel
    why_separate: str = ""
    _now: threading.local = field(default_factory=threading.local, repr=False)

    def __post_init__(self) -> None:
        """Register the attention with transformers."""
        accepted = inspect.signature(self.loaded.model.forward).parameters
        if "position_ids" not in accepted:
            self.why_separate = "its forward pass takes no positions"
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        self._plain = self.loaded.model.config._attn_implementation
        found: _Attention | None = None
        if self._plain != "eager":
            found = ALL_ATTENTION_FUNCTIONS["sdpa"]
        self._inner = self._sdpa = found
        self._name = f"{_NAME}-{id(self)}"
        ALL_ATTENTION_FUNCTIONS.register(self._name, self._attend)

    def run(self, stretches: Sequence[Continuation]) -> Tensor:
        """Run a pass; gives its token ids `[1, tokens]`. The pass ends where a hook raises LayerReached.

        It changes nothing that an earlier pass wrote, so that it can be run again.
        """
        ids = torch.tensor([[number for part in stretches for number in part.ids]])
        places = torch.cat([torch.arange(p.position, p.position + len(p.ids)) for p in stretches])
        device = self.loaded.device
        self._now.running = _RunningPass(stretches, self._inner)
        try:
            with torch.no_grad(), self.loaded.reading([1]), self._attention(), suppress(LayerReached):
                self.loaded.model(
                    input_ids=ids.to(device), position_ids=places.unsqueeze(0).to(device), use_cache=False
                )
        finally:
            self._now.running = None
        return ids

    def rehearse(self, chunks: Chunks) -> None:
        """Run a few sequences in parts beside each other and each whole; where they differ, `why_separate` says so."""
        longest = max(sum(parts) for parts in _REHEARSED)
        if self.why_separate or self.loaded.context < longest:
            return
        rows = self.loaded.model.config.get_text_config().vocab_size
        texts = [[(7 * n * n + 3 * n + s) % rows for n in range(sum(p))] for s, p in enumerate(_REHEARSED)]
        whole = [torch.cat([part for _, part in chunks.residuals(ids)]) for ids in texts]
        try:
            parts = self._in_parts(texts, chunks)
        except Exception as error:  # noqa: BLE001  (whatever a family cannot do, its sequences run one by one)
            self.why_separate = f"a pass of several sequences fails with {type(error).__name__}"
            return
        most = _APART.get(self.loaded.dtype, _APART_ELSE)
        if not all(_near(a, b, most) for a, b in zip(parts, whole, strict=True)):
            self.why_separate = "it reads sequences beside each other otherwise than alone"

    def _in_parts(self, texts: Sequence[Sequence[int]], chunks: Chunks) -> list[Tensor]:
        held = [KeysValues() for _ in texts]
        done, found = [0] * len(texts), [[torch.empty(0)] for _ in texts]
        for number in range(max(map(len, _REHEARSED))):
            which = [s for s, parts in enumerate(_REHEARSED) if number < len(parts)]
            sizes = [_REHEARSED[s][number] for s in which]
            stretches = [
                Continuation(held[s], done[s], texts[s][done[s] : done[s] + size])
                for s, size in zip(which, sizes, strict=True)
            ]
            read = torch.split(chunks.read_during(partial(self.run, stretches))[0], sizes)
            for s, size, part in zip(which, sizes, read, strict=True):
                found[s].append(part)
                done[s] += size
        return [torch.cat([part for part in parts if part.numel()]) for parts in found]

    @contextmanager
    def _attention(self) -> Iterator[None]:
        """The attention of this module for the time of a pass; the lock of the model's passes is held."""
        config = self.loaded.model.config
        plain, config._attn_implementation = config._attn_implementation, self._name
        try:
            yield
        finally:
            config._attn_implementation = plain

    def _attend(
        self,
        module: torch.nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Outputs `[1, tokens, heads, width]` of queries `[1, heads, tokens, width]`."""
        running: _RunningPass = self._now.running
        inner = running.inner or sys.modules[type(module).__module__].eager_attention_forward
        plain = inner is self._sdpa and is_plain(options)
        window, out, first = options.get("sliding_window"), [], 0
        options.pop("cache", None)
        for part in running.stretches:
            rows = slice(first, first + len(part.ids))
            first = rows.stop
            keys, values = part.past.put(
                int(module.layer_idx),  # type: ignore[arg-type]
                part.position,
                key[:, :, rows],
                value[:, :, rows],
            )
            mine, scale = query[:, :, rows], options.get("scaling")
            shape = len(part.ids), keys.shape[2], window
            if shape not in running.masks:
                running.masks[shape] = _mask(query, *shape)
            mask = running.masks[shape]
            if plain and len(part.ids) == 1:
                out.append(attend_one(mine, keys, values, mask, scale))
            elif plain and query.device.type == "cpu":
                out.append(_attend_shared(mine, keys, values, mask, scale))
            else:
                out.append(inner(module, mine, keys, values, mask, **options)[0])
        return torch.cat(out, dim=1), None


def _attend_shared(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float | None
) -> Tensor:
    """Outputs `[1, tokens, heads, width]` without copies of the keys and values that several heads share."""
    shared = query.shape[1] != key.shape[1]
    found = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale, enable_gqa=shared)
    return found.transpose(1, 2)


def _mask(query: Tensor, tokens: int, known: int, window: int | None) -> Tensor | None:
    """What is added to the scores of the last `tokens` of `known` tokens; None where each attends to all before it.

    A mask-free call of several queries would be taken for one that begins at the first key.
    """
    if tokens == 1 and (window is None or known <= window):
        return None
    here = torch.arange(known - tokens, known, device=query.device).unsqueeze(1)
    there = torch.arange(known, device=query.device).unsqueeze(0)
    hidden = there > here
    if window is not None:
        hidden = hidden | (here - there >= window)
    nothing = torch.zeros(tokens, known, dtype=query.dtype, device=query.device)
    return nothing.masked_fill(hidden, torch.finfo(query.dtype).min)[None, None]


def _near(found: Tensor, wanted: Tensor, most: float) -> bool:
    return bool(((found - wanted).norm(dim=-1) <= most * wanted.norm(dim=-1)).all())
