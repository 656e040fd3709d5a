"""What was read of blocks of vLLM's prefix cache, kept so that a hit is scored and not assumed clean.

A block of the cache is known by a hash over its tokens, those before it, and what was clamped. The rows that the tap
wrote for its tokens are kept under that hash. A hit is taken only as far as its rows are here; the rest is run again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitor.model.engine.readout import Taken
from monitor.model.tap.tap import Tap
from monitor.records import Readings

_LEAST = 64
"""Fewest blocks that are kept."""


@dataclass(frozen=True, slots=True, eq=False)
class TapRows:
    """What the tap wrote for consecutive tokens of one sequence."""

    ids: tuple[int, ...]
    readings: Readings
    """`[tokens, slots]`"""
    others: Readings | None
    """`[tokens, probes and signals]`; None where none were read."""
    sinks: NDArray[np.bool_]
    """`[tokens]`"""

    @classmethod
    def of(cls, taken: Taken, ids: Sequence[int]) -> TapRows:
        """What a pass wrote for its rows, which ran these token ids. Shares memory with it."""
        sinks = np.zeros(len(ids), bool) if taken.sinks is None else taken.sinks
        return cls(tuple(ids), taken.readings[:, : taken.read], taken.others, sinks)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def finite(self) -> bool:
        """True where all that was read are numbers."""
        parts = [self.readings] if self.others is None else [self.readings, self.others]
        return all(bool(np.isfinite(part).all()) for part in parts)

    def part(self, start: int, stop: int) -> TapRows:
        """Some of the tokens."""
        others = None if self.others is None else self.others[start:stop]
        return TapRows(self.ids[start:stop], self.readings[start:stop], others, self.sinks[start:stop])

    def copied(self) -> TapRows:
        """The same rows in memory of their own."""
        return TapRows.joined([self])

    @classmethod
    def joined(cls, parts: Sequence[TapRows]) -> TapRows:
        """Consecutive parts as one."""
        others = [part.others for part in parts if part.others is not None]
        return cls(
            tuple(token for part in parts for token in part.ids),
            np.concatenate([part.readings for part in parts]),
            np.concatenate(others) if len(others) == len(parts) else None,
            np.concatenate([part.sinks for part in parts]),
        )


class PrefixRows:
    """The rows of blocks, by their hashes; the block that was used longest ago makes room for a new one."""

    def __init__(self, blocks: int, size: int) -> None:
        """At most so many blocks, of `size` tokens each."""
        self.size = size
        self._most = max(blocks, _LEAST)
        self._rows: OrderedDict[bytes, tuple[Hashable, TapRows]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, block: bytes, layout: Hashable, rows: TapRows) -> None:
        """Keep the rows of a block, unless something in it could not be scored: that is run again."""
        if len(rows) != self.size or not rows.finite:
            return
        self._rows[block] = layout, rows
        self._rows.move_to_end(block)
        while len(self._rows) > self._most:
            self._rows.popitem(last=False)

    def first(self, blocks: Iterable[bytes], layout: Hashable) -> list[TapRows]:
        """Rows of the first blocks, up to one that is not here or whose columns were others."""
        found: list[TapRows] = []
        for block in blocks:
            known = self._rows.get(block)
            if known is None or known[0] != layout:
                break
            self._rows.move_to_end(block)
            found.append(known[1])
        return found

    def clear(self) -> None:
        """Forget all."""
        self._rows.clear()


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Consecutive rows of a pass that are one sequence's, cut out once they are needed."""

    rows: TapRows
    """Of the whole pass."""
    first: int
    count: int

    def cut(self) -> TapRows:
        """The rows of the sequence."""
        return self.rows.part(self.first, self.first + self.count)

    def alone(self) -> Run:
        """The same, without holding the rows of others in memory."""
        return Run(self.cut().copied(), 0, self.count)


@dataclass(slots=True)
class GrowingBlock:
    """The rows of one sequence since its last full block."""

    position: int
    """Of the first of them."""
    layout: Hashable = None
    runs: list[Run] = field(default_factory=list)
    held: int = 0
    """Rows in these runs."""

    def add(self, position: int, run: Run, layout: Hashable, size: int) -> list[tuple[int, TapRows]]:
        """Take in the next tokens, which begin at `position`. The blocks that are full now, each with its number.

        Tokens that do not follow the last ones begin anew, at the next block.
        """
        if position != self.position + self.held or layout != self.layout:
            skip = -position % size
            self.runs, self.held, self.position, self.layout = [], 0, position + skip, layout
            skip = min(skip, run.count)
            run = Run(run.rows, run.first + skip, run.count - skip)
        if not run.count:
            return []
        self.runs.append(run)
        self.held += run.count
        if self.held < size:
            return []
        whole, first = TapRows.joined([one.cut() for one in self.runs]), self.position // size
        full, self.held = divmod(self.held, size)
        self.runs = [Run(whole, full * size, self.held)] if self.held else []
        self.position += full * size
        return [(first + n, whole.part(n * size, (n + 1) * size)) for n in range(full)]


class TapMemory:
    """What the rows mean that the tap of a model writes."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap

    def layout(self) -> Hashable:
        """What the columns of rows mean now; equal for two passes only where they mean the same."""
        bank = self._tap.bank
        features = bank.features_in(np.arange(bank.read, dtype=np.intp)).tobytes()
        return features, bank.others.version, bank.others.read_any

    def taken(self, rows: TapRows) -> Taken:
        """Rows as a pass over their tokens alone would have read them."""
        sinks = rows.sinks if rows.sinks.any() else None
        return Taken(self._tap.bank, rows.readings, rows.readings.shape[1], rows.others, sinks)
