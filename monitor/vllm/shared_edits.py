"""Edits that every rank makes alike, and the proof that it did.

With tensor parallelism each rank holds a part of the weights and a whole copy of the residual stream. The first rank
reads it and computes what clamps make of it. The other ranks get the clamped rows from it, bit for bit, in one more
all-reduce of the kind that the model itself has after each attention and MLP.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.vllm.gate import PassPart

_DIRECTIONS = 4
_SEED = 17
_PAD = 8
"""Columns behind the stream, of which the first says what rows are edited: as many as keep rows aligned."""
_APART = 1e-3
"""Largest difference of two ranks' prints of a row, as a share of their size. Ranks that work do not differ at all."""

AllReduce = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class PassOrder:
    """What the first rank tells the others of a pass before it runs."""

    mark: bytes
    """Of whose tokens it runs; see `mark_of`."""
    rows: int
    clamping: bool
    """True where rows of it may be edited, so that the edits are shared."""


@dataclass(frozen=True, slots=True, eq=False)
class StreamPrints:
    """What the residual stream behind the tap was in a pass, short enough to be sent."""

    rows: NDArray[np.float32]
    """`[rows, 4]` products with fixed random directions."""
    edited: NDArray[np.bool_]
    """`[rows]`"""

    def why_apart(self, other: StreamPrints) -> str:
        """How another rank's stream differs from this one; empty where it does not."""
        if self.rows.shape != other.rows.shape:
            return f"ran {len(other.rows)} rows and not {len(self.rows)}"
        if (self.edited != other.edited).any():
            return f"edited {int(other.edited.sum())} rows and not {int(self.edited.sum())}, or others"
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(self.rows - other.rows).max(-1, initial=0)
            alike = apart <= _APART * np.linalg.norm(self.rows, axis=-1)
        # Where the first rank has no numbers, its readings say so themselves.
        alike |= ~np.isfinite(self.rows).all(-1) & ~np.isfinite(other.rows).all(-1)
        return "" if alike.all() else f"has another residual stream in {int((~alike).sum())} rows"


class SharedEdits:
    """The edits of one rank's passes."""

    def __init__(self, all_reduce: AllReduce, *, static: bool) -> None:
        """`all_reduce` sums over the ranks. With `static`, edits are shared in every pass, which CUDA graphs replay."""
        self._all_reduce, self._static = all_reduce, static
        self._rows = 0
        self._clamping = False
        self._directions = torch.empty(0)
        self._prints = torch.empty(0, _DIRECTIONS)
        self._edited = torch.empty(0, dtype=torch.bool)

    @property
    def sharing(self) -> bool:
        """True in passes in which every rank takes part in sharing what is edited."""
        return self._static or self._clamping

    def begin(self, rows: int, *, clamping: bool) -> None:
        """A pass over so many rows is about to run."""
        self._rows, self._clamping = rows, clamping
        # A tap that does not run is to be noticed.
        self._prints[:rows].fill_(torch.nan)
        self._edited[:rows].fill_(False)

    def end(self) -> StreamPrints | None:
        """The pass is over: what its rows were. None where none was begun."""
        rows, self._rows, self._clamping = self._rows, 0, False
        if not rows:
            return None
        return StreamPrints(
            self._prints[:rows].cpu().numpy().copy(), self._edited[:rows].cpu().numpy().copy()
        )

    def share(self, x: Tensor, mine: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """The clamped stream `[rows, d_model]` and what rows `[rows, 1]` of it are edited, of the rank that has them.

        `x` is the stream `[rows, d_model]` before. `mine` is what this rank has computed; None on the other ranks.
        """
        rows, width = x.shape
        sent = x.new_zeros(rows, width + _PAD)
        if mine is not None:
            clamped, edited = mine
            sent[:, :width] = torch.where(edited, clamped, 0)
            sent[:, width:] = edited.to(x.dtype)
        got = self._all_reduce(sent)
        edited = got[:, width : width + 1] > 0
        self._room(x)
        self._edited[:rows] = edited.squeeze(-1)
        return got[:, :width], edited

    def note(self, x: Tensor) -> None:
        """Take the prints of a pass's stream `[rows, d_model]`, once it was edited."""
        self._room(x)
        self._prints[: len(x)] = x.float() @ self._directions

    def _room(self, x: Tensor) -> None:
        """Have room for the rows of a pass. The longest pass is the first that vLLM runs, before it captures any."""
        if len(self._directions) != x.shape[1] or self._directions.device != x.device:
            made = torch.randn(x.shape[1], _DIRECTIONS, generator=torch.Generator().manual_seed(_SEED))
            self._directions = made.to(x.device)
        if len(self._prints) < len(x) or self._prints.device != x.device:
            self._prints = torch.full((len(x), _DIRECTIONS), torch.nan, device=x.device)
            self._edited = torch.zeros(len(x), dtype=torch.bool, device=x.device)


def mark_of(parts: Sequence[PassPart], ids: Sequence[int]) -> bytes:
    """A digest of whose tokens a pass runs, at what positions, and of their ids."""
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(f"{len(part.name)} {part.name} {part.count} {part.position}\n".encode())
    made.update(np.asarray(ids, np.int64).tobytes())
    return made.digest()
