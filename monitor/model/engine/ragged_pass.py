"""Ragged passes: tokens that continue many sequences of different lengths, in one forward pass to the tapped layer.

All tokens of a pass stand in one row, so that everything but attention is computed for all of them at once. Attention
is computed for each sequence over its own keys and values: what is no number in one reaches no other. Sequences that go
on by one token each, and whose keys and values lie beside each other, are the batch of one call.
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
from monitor.model.engine.keys_values import KeysValues, Slab, Slabs
from monitor.model.load.model import LoadedModel
from monitor.model.tap.tap import LayerReached

_NAME = "ragged"
"""Of the attention implementation, as transformers knows it."""
_REHEARSED = ((9, 1, 6), (3, 1, 1, 1), (17, 5))
"""Tokens of the parts in which three sequences are run at the start, beside each of them whole."""
_APART = {torch.float32: 1e-2, torch.float64: 1e-3}
"""Largest relative difference between residuals read in parts and whole."""
_APART_ELSE = 0.1

_Attention = Callable[..., tuple[Tensor, Any]]


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
    together: list[_SharedCall] = field(default_factory=list)
    """Where the attention is plain: the sequences that share calls."""
    apart: list[tuple[slice, Continuation]] = field(default_factory=list)
    """The rows of all others."""
    all: list[tuple[slice, Continuation]] = field(default_factory=list)
    """The rows of all."""

    def __post_init__(self) -> None:
        single: dict[int, list[tuple[slice, Continuation]]] = {}
        first = 0
        for part in self.stretches:
            end = first + len(part.ids)
            part.past.reserve(part.position + len(part.ids))
            self.all.append((slice(first, end), part))
            if len(part.ids) == 1:
                single.setdefault(id(part.past.slab), []).append(self.all[-1])
            first = end
        shared = {slab: parts for slab, parts in single.items() if len(parts) > 1}
        self.together = [_SharedCall.of(parts, first) for parts in shared.values()]
        self.apart = [
            (rows, part) for rows, part in self.all if len(part.ids) > 1 or id(part.past.slab) not in shared
        ]


@dataclass(frozen=True, slots=True)
class _CallRows:
    """Of sequences that share a call: tensors `[sequences]` on the device of a layer."""

    rows: Tensor
    """Of their tokens in the pass."""
    places: Tensor
    """On the slab."""
    positions: Tensor
    """Of their tokens in the sequences."""

    def to(self, device: torch.device) -> _CallRows:
        """The same on another device."""
        return _CallRows(self.rows.to(device), self.places.to(device), self.positions.to(device))


@dataclass(slots=True)
class _SharedCall:
    """Sequences that a pass continues by one token each, and that stand on one slab, by their places there."""

    slab: Slab
    where: _CallRows
    in_order: bool
    """True where the pass has no other rows, and these in this order."""
    neighbours: slice | None
    """The places, where nothing else is between them."""
    known: int
    """Tokens of the longest of them."""
    masks: dict[tuple[int | None, torch.device], tuple[_CallRows, Tensor]] = field(default_factory=dict)
    """By the width of the window, beside where they are."""

    @classmethod
    def of(cls, parts: Sequence[tuple[slice, Continuation]], tokens: int) -> _SharedCall:
        """Of some rows of a pass over so many tokens."""
        ordered = sorted(parts, key=lambda one: one[1].past.place)
        rows, mine = [rows.start for rows, _ in ordered], [part for _, part in ordered]
        places, positions = [part.past.place for part in mine], [part.position for part in mine]
        slab, taken = mine[0].past.slab, slice(places[0], places[-1] + 1)
        assert slab is not None
        return cls(
            slab,
            _CallRows(torch.tensor(rows), torch.tensor(places), torch.tensor(positions)),
            rows == list(range(tokens)),
            taken if taken.stop - taken.start == len(places) else None,
            max(positions) + 1,
        )

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float | None
    ) -> tuple[slice | Tensor, Tensor]:
        """Their rows, and outputs `[1, sequences, heads, width]`. What is given is that of all rows of the pass.

        Heads that share keys and values stand as rows beside each other, so that nothing is repeated.
        """
        if (window, query.device) not in self.masks:
            where = self.where.to(query.device)
            self.masks[window, query.device] = where, self._mask(where, query.dtype, window)
        where, mask = self.masks[window, query.device]
        queries, new_keys, new_values = (self._mine(where, rows) for rows in (query, key, value))
        keys, values = self.slab.layer(layer, key, value)
        keys[where.places, :, where.positions] = new_keys
        values[where.places, :, where.positions] = new_values
        count, heads, width = queries.shape
        found = scaled_dot_product_attention(
            queries.reshape(count, keys.shape[1], heads // keys.shape[1], width),
            self._past(where, keys),
            self._past(where, values),
            attn_mask=mask,
            scale=scale,
        )
        rows = slice(0, count) if self.in_order else where.rows
        return rows, found.reshape(1, count, heads, found.shape[3])

    def _mine(self, where: _CallRows, rows: Tensor) -> Tensor:
        """Their rows `[sequences, heads, width]` of `[1, heads, tokens, width]`."""
        found = rows[0].transpose(0, 1)
        return found if self.in_order else found[where.rows]

    def _past(self, where: _CallRows, held: Tensor) -> Tensor:
        """Theirs, `[sequences, heads, known, width]`, of a tensor of the slab."""
        held = held[:, :, : self.known]
        return held[where.places] if self.neighbours is None else held[self.neighbours]

    def _mask(self, where: _CallRows, dtype: torch.dtype, window: int | None) -> Tensor:
        """What is added to scores, `[sequences, 1, 1, known]`."""
        device = where.positions.device
        behind = where.positions.unsqueeze(1) - torch.arange(self.known, device=device)
        hidden = behind < 0 if window is None else (behind < 0) | (behind >= window)
        nothing = torch.zeros(len(hidden), self.known, dtype=dtype, device=device)
        return nothing.masked_fill(hidden, torch.finfo(dtype).min)[:, None, None]


@dataclass
class RaggedPasses:
    """Ragged passes of one model. `why_separate` says why its sequences must run one by one; empty where not."""

    loaded: LoadedModel
    why_separate: str = ""
    slabs: Slabs = field(default_factory=Slabs, repr=False)
    """Where keys and values of its sequences stand."""
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
        held = [KeysValues(self.slabs) for _ in texts]
        try:
            return self._read_in_parts(texts, held, chunks)
        finally:
            for one in held:
                one.release()

    def _read_in_parts(
        self, texts: Sequence[Sequence[int]], held: Sequence[KeysValues], chunks: Chunks
    ) -> list[Tensor]:
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
        layer, window, scale = (module.layer_idx, options.get("sliding_window"), options.get("scaling"))
        assert isinstance(layer, int)
        options.pop("cache", None)
        tokens = query.shape[2]
        found: list[tuple[slice | Tensor, Tensor]] = []
        for group in running.together if plain else ():
            found.append(group.attend(layer, query, key, value, window, scale))
        for rows, part in running.apart if plain else running.all:
            mine, new_keys, new_values = (
                whole.narrow(2, rows.start, len(part.ids)) for whole in (query, key, value)
            )
            keys, values = part.past.put(layer, part.position, new_keys, new_values)
            shape = len(part.ids), keys.shape[2], window
            if shape not in running.masks:
                running.masks[shape] = _mask(query, *shape)
            mask = running.masks[shape]
            if plain and len(part.ids) == 1:
                out = attend_one(mine, keys, values, mask, scale)
            elif plain and query.device.type == "cpu":
                out = _attend_shared(mine, keys, values, mask, scale)
            else:
                out = inner(module, mine, keys, values, mask, **options)[0]
            found.append((rows, out))
        return _in_order(found, tokens), None


def _in_order(found: Sequence[tuple[slice | Tensor, Tensor]], tokens: int) -> Tensor:
    """Outputs `[1, tokens, heads, width]` of all rows of a pass."""
    some = found[0][1]
    if all(isinstance(rows, slice) for rows, _ in found):
        return torch.cat([out for _, out in found], dim=1) if len(found) > 1 else some
    whole = some.new_empty(1, tokens, *some.shape[2:])
    for rows, out in found:
        whole[:, rows] = out
    return whole


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
