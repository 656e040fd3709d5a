"""Activations of a model on text, shuffled through a bounded buffer.

Knows which positions are trained on. Does not know models or files: rows of token ids and the function that
turns them into residuals are given. What comes out depends on nothing but these and the seed, and any batch can
be reached without running the model on what lies before its buffer: that is how a run resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from monitor.dictionary.training import processes
from monitor.errors import DictionaryError

FORWARD = 32
"""Rows in one forward pass."""

OUTLIER = 10.0
"""Positions whose norm exceeds so many times the buffer's median are attention sinks, and left out."""

Residuals = Callable[[Tensor], Tensor]
"""Ids `[rows, length]` to residuals `[rows, length, d]`."""


def trained_positions(ids: Tensor, bos: int | None) -> Tensor:
    """`[rows, length]` bool: all but the first position and BOS, which are attention sinks."""
    keep = torch.ones_like(ids, dtype=torch.bool)
    if bos is not None:
        keep = torch.ne(ids, bos)
    keep[:, 0] = False
    return keep


class ActivationStream:
    """Batches `[batch, d]` of raw activations.

    A buffer is filled with `buffer` positions (rounded down to whole batches), shuffled, given out and filled
    anew. Of several processes, each takes every n-th forward pass.
    """

    def __init__(
        self,
        rows: Callable[[], Iterator[Tensor]],
        residuals: Residuals,
        *,
        bos: int | None,
        batch: int,
        buffer: int,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._rows = rows
        self._residuals = residuals
        self._bos = bos
        self._batch = batch
        self._per_buffer = max(1, buffer // batch)
        self._seed = seed
        self._dtype = dtype
        self.outliers = 0
        """Positions left out for their norm."""
        self.seen = 0
        """Positions that went through the model."""

    def batches(self, skip: int = 0) -> Iterator[Tensor]:
        """All batches from number `skip` on."""
        forwards = self._forwards()
        first, offset = divmod(skip, self._per_buffer)
        for _ in range(first):
            for _ in self._fill(forwards):
                pass
        number = first
        while True:
            held = self._harvest(list(self._fill(forwards)))
            if held is None:
                return
            order = self._order(held, number)
            for at in range(offset, self._per_buffer):
                yield held[order[at * self._batch : (at + 1) * self._batch]]
            offset, number = 0, number + 1

    def _forwards(self) -> Iterator[Tensor]:
        """Ids `[FORWARD, length]` of this process's forward passes."""
        rows = self._rows()
        number = 0
        while group := list(islice(rows, FORWARD)):
            if number % processes.size() == processes.rank():
                yield torch.stack(group)
            number += 1

    def _fill(self, forwards: Iterator[Tensor]) -> Iterator[Tensor]:
        """The forward passes that fill one buffer."""
        wanted = self._per_buffer * self._batch
        while wanted > 0:
            ids = next(forwards, None)
            if ids is None:
                return
            wanted -= int(trained_positions(ids, self._bos).sum())
            yield ids

    def _harvest(self, passes: list[Tensor]) -> Tensor | None:
        """`[positions, d]`, at least a buffer full; None where the text ended before."""
        wanted = self._per_buffer * self._batch
        if sum(int(trained_positions(ids, self._bos).sum()) for ids in passes) < wanted:
            return None
        held: Tensor | None = None
        filled = 0
        for ids in passes:
            found = self._residuals(ids)
            found = found[trained_positions(ids, self._bos).to(found.device)]
            if held is None:
                room = wanted + FORWARD * ids.shape[1]
                held = torch.empty(room, found.shape[1], dtype=self._dtype, device=found.device)
            held[filled : filled + found.shape[0]] = found
            filled += found.shape[0]
        assert held is not None
        self.seen += filled
        return held[:filled]

    def _order(self, held: Tensor, number: int) -> Tensor:
        """A permutation of the buffer without its outliers; some come twice where too few are left.

        DictionaryError where none is left.
        """
        norms = held.float().norm(dim=1)
        # One that is no number must not hide the others' median; it compares as false, and is left out.
        good = (norms <= OUTLIER * norms.nanmedian()).nonzero().squeeze(1)
        if not len(good):
            raise DictionaryError(
                "the model computes no numbers where the dictionary reads; look at its dtype"
            )
        self.outliers += held.shape[0] - good.shape[0]
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        order = good[torch.randperm(good.shape[0], generator=random).to(good.device)]
        wanted = self._per_buffer * self._batch
        often: Tensor = order.repeat(-(-wanted // order.shape[0]))
        return often[:wanted]
