"""Stream of a model's residuals on text, shuffled within a buffer of bounded size.

The batches depend only on text, model and seed. To resume a run, the stream skips to a batch without running the model
on the text of earlier buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from monitor.dictionary.packed_text import PackedText, batches
from monitor.dictionary.residual_signals import outlying
from monitor.dictionary.training import processes
from monitor.errors import DictionaryError

FORWARD = 32
"""Number of rows in one forward pass."""

Residuals = Callable[[Tensor], Tensor]
"""Maps token ids `[rows, length]` to residuals `[rows, length, d]`."""


class ActivationStream:
    """Batches `[batch, d]` of unscaled residuals, without attention sinks.

    A buffer of `buffer` positions, rounded down to whole batches, is filled, shuffled and given out as batches; then
    the next one is filled. Of n processes, each runs every n-th forward pass.
    """

    def __init__(
        self,
        rows: Callable[[], Iterator[PackedText]],
        residuals: Residuals,
        *,
        limit: float,
        batch: int,
        buffer: int,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._rows = rows
        self._residuals = residuals
        self._limit = limit
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

    def _forwards(self) -> Iterator[PackedText]:
        """Batches of `FORWARD` rows: the forward passes of this process."""
        for number, group in enumerate(batches(self._rows(), FORWARD)):
            if number % processes.size() == processes.rank():
                yield group

    def _fill(self, forwards: Iterator[PackedText]) -> Iterator[PackedText]:
        """The forward passes that fill one buffer."""
        wanted = self._per_buffer * self._batch
        while wanted > 0:
            group = next(forwards, None)
            if group is None:
                return
            wanted -= int((group.positions > 0).sum())
            yield group

    def _harvest(self, passes: list[PackedText]) -> Tensor | None:
        """Residuals `[positions, d]` of these passes; None where they do not fill a buffer, at the end of the text.

        First positions are left out. Outlying norms stay, since how much text fills a buffer must be known without the
        model; `_order` leaves them out.
        """
        wanted = self._per_buffer * self._batch
        if sum(int((group.positions > 0).sum()) for group in passes) < wanted:
            return None
        held: Tensor | None = None
        filled = 0
        for group in passes:
            found = self._residuals(group.ids)
            found = found[(group.positions > 0).to(found.device)]
            if held is None:
                room = wanted + group.tokens
                held = torch.empty(room, found.shape[1], dtype=self._dtype, device=found.device)
            held[filled : filled + found.shape[0]] = found
            filled += found.shape[0]
        assert held is not None
        self.seen += filled
        return held[:filled]

    def _order(self, held: Tensor, number: int) -> Tensor:
        """A random order of the buffer's positions without sinks and without what is not finite.

        Where fewer positions are left than the buffer has, some are repeated. DictionaryError where none is left.
        """
        # The sum of a row is finite where all of it is, at a fraction of the memory of looking at each number.
        good = (~outlying(held, self._limit) & held.sum(1).isfinite()).nonzero().squeeze(1)
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
