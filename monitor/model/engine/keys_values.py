"""Keys and values of sequences of different lengths, for passes that continue many of them.

Sequences of about one length share the tensors of one slab, as objects of one size do in a slab allocator. What many of
them write and read in a layer is one operation then, and nothing is copied where those that a pass continues are
neighbours.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

from torch import Tensor

_FIRST = 64
"""Tokens for which a sequence has room at first; doubled until they suffice."""
_SLAB = 2048
"""Tokens of a slab, all places together. A longer sequence has a slab of its own."""
_SPARSE, _DENSE = 0.25, 0.5
"""A sequence moves from a slab of which at most such a share is taken to one of which at least the other one is."""


class Slab:
    """Keys and values of sequences that have room for the same number of tokens: a place in every tensor each.

    Memory of a place that nobody has taken yet is not written, so that the operating system does not give it.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.places = max(1, _SLAB // room)
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}
        """Keys and values `[places, heads, room, width]` of each layer."""
        self._free = list(range(self.places))
        self._taken: set[int] = set()

    @property
    def share(self) -> float:
        """Of its places, how many are taken."""
        return len(self._taken) / self.places

    def take(self) -> int:
        """The first free place, with zeros in every tensor. Raises IndexError where none is free."""
        place = heapq.heappop(self._free)
        self._taken.add(place)
        for held in self.layers.values():
            _clear(held, (place,))
        return place

    def give(self, place: int) -> None:
        """Undo a `take`."""
        self._taken.remove(place)
        heapq.heappush(self._free, place)

    def layer(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Those of a layer, made for keys and values such as these, `[..., heads, tokens, width]`, where it has none.

        What stands behind the tokens of a sequence is zeros, or what an earlier pass of its own wrote there: numbers
        that a mask can take out.
        """
        held = self.layers.get(number)
        if held is None:
            held = self.layers[number] = (self._empty(keys), self._empty(values))
            _clear(held, tuple(self._taken))
        return held

    def _empty(self, like: Tensor) -> Tensor:
        return like.new_empty(self.places, like.shape[-3], self.room, like.shape[-1])


class Slabs:
    """The slabs of one model. Places are taken on the thread that runs its passes, and given back on any thread."""

    def __init__(self) -> None:
        self._slabs: list[Slab] = []
        self._lock = threading.Lock()

    def take(self, tokens: int) -> tuple[Slab, int]:
        """A place with room for so many tokens, on the fullest slab that has one."""
        room = max(_FIRST, 1 << (tokens - 1).bit_length())
        with self._lock:
            fitting = [slab for slab in self._slabs if slab.room == room and slab.share < 1]
            if not fitting:
                fitting = [Slab(room)]
                self._slabs += fitting
            slab = max(fitting, key=lambda one: one.share)
            return slab, slab.take()

    def give(self, slab: Slab, place: int) -> None:
        """Undo a `take`. A slab on which nothing stands any more is forgotten."""
        with self._lock:
            slab.give(place)
            if not slab.share:
                self._slabs.remove(slab)

    def better(self, slab: Slab) -> bool:
        """True where what stands on a slab should move: few places are taken there, and many on one like it."""
        if slab.places == 1 or slab.share > _SPARSE:
            return False
        with self._lock:
            others = [one.share for one in self._slabs if one.room == slab.room]
        return any(_DENSE <= share < 1 for share in others)


class KeysValues:
    """Keys and values of one sequence, by layer. What stands behind its tokens may be overwritten.

    To be released when the sequence ends; it may begin anew then.
    """

    def __init__(self, slabs: Slabs) -> None:
        self._slabs = slabs
        self.slab: Slab | None = None
        """Where they stand, from the first token on."""
        self.place = 0
        """Their place there."""
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        """Those at its place, where they were asked for, `[1, heads, room, width]`."""

    def reserve(self, tokens: int) -> None:
        """Have room for so many tokens. May move all that is held, which stays as it is."""
        old, place = self.slab, self.place
        if old is not None and old.room >= tokens and not self._slabs.better(old):
            return
        self.slab, self.place = self._slabs.take(max(tokens, self.room))
        self._layers = {}
        if old is None:
            return
        for number, parts in old.layers.items():
            for here, there in zip(self._layer(number, *parts), parts, strict=True):
                here[0, :, : there.shape[2]] = there[place]
        self._slabs.give(old, place)

    def put(self, layer: int, position: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write those of tokens from a position on, `[1, heads, tokens, width]`; all up to the last of them."""
        end = position + keys.shape[2]
        if self.room < end:
            self.reserve(end)
        held = self._layer(layer, keys, values)
        for part, new in zip(held, (keys, values), strict=True):
            part.narrow(2, position, end - position).copy_(new)
        return held[0].narrow(2, 0, end), held[1].narrow(2, 0, end)

    def release(self) -> None:
        """Let go of all that is held."""
        if self.slab is not None:
            self._slabs.give(self.slab, self.place)
        self.slab, self._layers = None, {}

    @property
    def bytes(self) -> int:
        """Of memory for this sequence."""
        if self.slab is None:
            return 0
        return sum(part.nbytes for parts in self.slab.layers.values() for part in parts) // self.slab.places

    @property
    def room(self) -> int:
        """Tokens that fit without moving."""
        return 0 if self.slab is None else self.slab.room

    def _layer(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        held = self._layers.get(number)
        if held is None:
            assert self.slab is not None
            mine = slice(self.place, self.place + 1)
            whole = self.slab.layer(number, keys, values)
            held = self._layers[number] = (whole[0][mine], whole[1][mine])
        return held


def _clear(held: tuple[Tensor, Tensor], places: Iterable[int]) -> None:
    for part in held:
        for place in places:
            part[place].zero_()
