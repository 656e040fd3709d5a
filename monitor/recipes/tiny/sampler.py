"""Batches of rows, drawn from corpora by a mixture.

Every row of a corpus is drawn once before any is drawn again. The state is a few numbers, so that a resumed run draws
exactly what an unbroken one would have.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from monitor.recipes.tiny.shards import Rows


class RowSampler:
    """Endless batches `[rows, length]` of token ids (int64)."""

    def __init__(self, corpora: dict[str, Rows], seed: int) -> None:
        if not corpora:
            raise ValueError("no corpus has a full row of training tokens: add text or shorten the context")
        self._corpora = corpora
        self._seed = seed
        self._names = sorted(corpora)
        self._drawn = dict.fromkeys(self._names, 0)
        self._random = np.random.default_rng(seed)
        self._orders: dict[str, tuple[int, np.ndarray[Any, np.dtype[np.int64]]]] = {}

    def batch(self, rows: int, mixture: dict[str, float]) -> Tensor:
        """The next rows, corpora drawn in proportion to `mixture` (corpora it does not name are left out)."""
        weights = np.array([mixture.get(name, 0.0) for name in self._names])
        if weights.sum() <= 0:
            raise ValueError(f"the mixture names none of the corpora at hand: {', '.join(self._names)}")
        picks = self._random.choice(len(self._names), size=rows, p=weights / weights.sum())
        drawn = np.stack([self._next_row(self._names[pick]) for pick in picks])
        return torch.from_numpy(drawn.astype(np.int64))

    def epochs(self) -> dict[str, float]:
        """How many times each corpus has been read."""
        return {name: self._drawn[name] / len(self._corpora[name]) for name in self._names}

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {"drawn": dict(self._drawn), "random": self._random.bit_generator.state}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken.

        Raises:
            ValueError: The state counts other corpora than those at hand.
        """
        if sorted(state["drawn"]) != self._names:
            raise ValueError("the checkpoint was made from other corpora: train into a new folder")
        self._drawn = dict(state["drawn"])
        self._random.bit_generator.state = state["random"]

    def _next_row(self, name: str) -> Rows:
        rows = self._corpora[name]
        epoch, place = divmod(self._drawn[name], len(rows))
        self._drawn[name] += 1
        return np.asarray(rows[self._order(name, epoch)[place]])

    def _order(self, name: str, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        known = self._orders.get(name)
        if known is None or known[0] != epoch:
            random = np.random.default_rng([self._seed, self._names.index(name), epoch])
            known = (epoch, random.permutation(len(self._corpora[name])))
            self._orders[name] = known
        return known[1]
