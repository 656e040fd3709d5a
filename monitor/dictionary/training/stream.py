"""Stream of a model's residuals on text, shuffled within a buffer of bounded size.

The batches depend only on text, model and seed. To resume a run, the stream skips to a batch without running the model
on the text of earlier buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import torch
from torch import Tensor

from monitor.dictionary.training import processes
from monitor.errors import DictionaryError

FORWARD = 32
"""Number of rows in one forward pass."""

OUTLIER = 10.0
"""Positions whose norm exceeds the buffer's median by this factor are attention sinks and are left out."""

Residuals = Callable[[Tensor], Tensor]
"""Maps token ids `[rows, length]` to residuals `[rows, length, d]`."""


def trained_positions(ids: Tensor, bos: int | None) -> Tensor:
    """`[rows, length]` bool: True for all positions but the first of a row and BOS, which are attention sinks."""
    keep = torch.ones_like(ids, dtype=torch.bool)
    if bos is not None:
        keep = torch.ne(ids, bos)
    keep[:, 0] = False
    return keep


class ActivationStream:
    """Batches `[batch, d]` of unscaled residuals.

    A buffer of `buffer` positions, rounded down to whole batches, is filled, shuffled and given out as batches; then
    the next one is filled. Of n processes, each runs every n-th forward pass.
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
        """Number of positions left out because of their norm."""
        self.seen = 0
        """Number of positions that the model was run on."""

    def batches(self, skip: int = 0) -> Iterator[Tensor]:
        """All batches but the first `skip`."""
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
        """Token ids `[FORWARD, length]` of this process's forward passes."""
        rows = self._rows()
        number = 0
        while group := list(islice(rows, FORWARD)):
            if number % processes.size() == processes.rank():
                yield torch.stack(group)
            number += 1

    def _fill(self, forwards: Iterator[Tensor]) -> Iterator[Tensor]:
        """Token ids of the forward passes that fill one buffer."""
        wanted = self._per_buffer * self._batch
        while wanted > 0:
            ids = next(forwards, None)
            if ids is None:
                return
            wanted -= int(trained_positions(ids, self._bos).sum())
            yield ids

    def _harvest(self, passes: list[Tensor]) -> Tensor | None:
        """Residuals `[positions, d]` of these passes; None where they do not fill a buffer, at the end of the text."""
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
        """A random order of the buffer's positions without outliers.

        Where fewer positions are left than the buffer has, some are repeated. DictionaryError where none is left.
        """
        norms = held.float().norm(dim=1)
        # A norm that is NaN is ignored in the median, compares as False, and is left out.
        good = (norms <= OUTLIER * norms.nanmedian()).nonzero().squeeze(1)
        if not len(good):
            raise DictionaryError(
                "all residuals are NaN where the dictionary reads the model; give the model another dtype"
            )
        self.outliers += held.shape[0] - good.shape[0]
        random = torch.Generator().manual_seed(self._seed * 1_000_003 + number)
        order = good[torch.randperm(good.shape[0], generator=random).to(good.device)]
        wanted = self._per_buffer * self._batch
        often: Tensor = order.repeat(-(-wanted // order.shape[0]))
        return often[:wanted]
