"""Keys and values of sequences of different lengths, for passes that continue many of them.

Sequences of about one length lie beside each other in one tensor, a shelf. What many of them write and read in a layer
is one operation then, and nothing is copied where those that a pass continues are neighbours.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

from torch import Tensor

_FIRST = 64
"""Tokens for which a sequence has room at first; doubled until they suffice."""
_SHELF = 2048
"""Tokens of a shelf, all places together. A longer sequence has a shelf of its own."""
_SPARSE, _DENSE = 0.25, 0.5
"""A sequence moves from a shelf of which at most such a share is taken to one of which at least the other one is."""


class Shelf:
    """Keys and values of sequences that have room for the same number of tokens: a place in every tensor each.

    Memory of a place that nobody has taken yet is not written, so that the operating system does not give it.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.places = max(1, _SHELF // room)
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


class Shelves:
    """The shelves of one model. Places are taken on the thread that runs its passes, and given back on any thread."""

    def __init__(self) -> None:
        self._shelves: list[Shelf] = []
        self._lock = threading.Lock()

    def take(self, tokens: int) -> tuple[Shelf, int]:
        """A place with room for so many tokens, on the fullest shelf that has one."""
        room = max(_FIRST, 1 << (tokens - 1).bit_length())
        with self._lock:
            fitting = [shelf for shelf in self._shelves if shelf.room == room and shelf.share < 1]
            if not fitting:
                fitting = [Shelf(room)]
                self._shelves += fitting
            shelf = max(fitting, key=lambda one: one.share)
            return shelf, shelf.take()

    def give(self, shelf: Shelf, place: int) -> None:
        """Undo a `take`. A shelf on which nothing stands any more is forgotten."""
        with self._lock:
            shelf.give(place)
            if not shelf.share:
                self._shelves.remove(shelf)

    def better(self, shelf: Shelf) -> bool:
        """True where what stands on a shelf should move: few places are taken there, and many on one like it."""
        if shelf.places == 1 or shelf.share > _SPARSE:
            return False
        with self._lock:
            others = [one.share for one in self._shelves if one.room == shelf.room]
        return any(_DENSE <= share < 1 for share in others)


class KeysValues:
    """Keys and values of one sequence, by layer. What stands behind its tokens may be overwritten.

    To be released when the sequence ends; it may begin anew then.
    """

    def __init__(self, shelves: Shelves) -> None:
        self._shelves = shelves
        self.shelf: Shelf | None = None
        """Where they stand, from the first token on."""
        self.place = 0
        """Their place there."""
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        """Those at its place, where they were asked for, `[1, heads, room, width]`."""

    def reserve(self, tokens: int) -> None:
        """Have room for so many tokens. May move all that is held, which stays as it is."""
        old, place = self.shelf, self.place
        if old is not None and old.room >= tokens and not self._shelves.better(old):
            return
        self.shelf, self.place = self._shelves.take(max(tokens, self.room))
        self._layers = {}
        if old is None:
            return
        for number, parts in old.layers.items():
            for here, there in zip(self._layer(number, *parts), parts, strict=True):
                here[0, :, : there.shape[2]] = there[place]
        self._shelves.give(old, place)

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
        if self.shelf is not None:
            self._shelves.give(self.shelf, self.place)
        self.shelf, self._layers = None, {}

    @property
    def bytes(self) -> int:
        """Of memory for this sequence."""
        if self.shelf is None:
            return 0
        return sum(part.nbytes for parts in self.shelf.layers.values() for part in parts) // self.shelf.places

    @property
    def room(self) -> int:
        """Tokens that fit without moving."""
        return 0 if self.shelf is None else self.shelf.room

    def _layer(self, number: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        held = self._layers.get(number)
        if held is None:
            assert self.shelf is not None
            mine = slice(self.place, self.place + 1)
            whole = self.shelf.layer(number, keys, values)
            held = self._layers[number] = (whole[0][mine], whole[1][mine])
        return held


def _clear(held: tuple[Tensor, Tensor], places: Iterable[int]) -> None:
    for part in held:
        for place in places:
            part[place].zero_()
