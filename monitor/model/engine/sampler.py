"""Choose the next token of every request in a batch, each by its own settings.

Knows logits and per-row settings in tensors that are allocated once. Does not know requests or tokenizers. A seeded
request draws its own random numbers, so its tokens do not depend on what runs beside it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from monitor.records import Sampling


class Draw:
    """One request's settings and its own stream of random numbers."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._random = random.Random(sampling.seed) if sampling.seed is not None else random.SystemRandom()
        self._next: float | None = None

    @property
    def greedy(self) -> bool:
        """True where no randomness is wanted."""
        return self.sampling.temperature == 0

    def uniform(self) -> float:
        """The number in [0, 1) for the next token; the same one until `taken`."""
        if self.greedy:
            return 0.0
        if self._next is None:
            self._next = self._random.random()
        return self._next

    def taken(self) -> None:
        """A token was taken, so the next has a number of its own.

        A token that nobody takes, because the sequence is run again, uses none up: whether a pass over a prompt draws
        one depends on how the prompt was split, and so on what ran beside it.
        """
        self._next = None


_NOBODY = Draw(Sampling())


class Sampler:
    """Greedy, temperature, top-k and top-p by row; inverse-CDF sampling from a uniform number per row."""

    def __init__(self, rows: int, device: torch.device, *, static: bool = False) -> None:
        place: dict[str, Any] = {"device": device}
        self._temperature = torch.zeros(rows, **place)
        self._top_k = torch.zeros(rows, dtype=torch.int64, **place)
        self._top_p = torch.ones(rows, **place)
        self._uniform = torch.zeros(rows, **place)
        self._broken = torch.zeros(rows, dtype=torch.bool, **place)
        self._any = False
        self._static = static

    def prepare(self, requests: Sequence[Draw | None]) -> None:
        """Settings of the rows that will get a new token, in row order (None: nobody waits for it any more)."""
        draws = [draw or _NOBODY for draw in requests]
        self._any = not all(draw.greedy for draw in draws)
        if not (self._any or self._static):
            return
        count = len(draws)
        settings = [draw.sampling for draw in draws]
        self._temperature[:count] = torch.tensor([s.temperature for s in settings])
        self._top_k[:count] = torch.tensor([s.top_k for s in settings])
        self._top_p[:count] = torch.tensor([s.top_p for s in settings])
        self._uniform[:count] = torch.tensor([draw.uniform() for draw in draws])

    def choose(self, logits: Tensor) -> Tensor:
        """Next token ids `[rows]` from logits `[rows, vocabulary]`, float32."""
        greedy = logits.argmax(-1)
        # Of a row that holds NaN, the largest is NaN.
        largest = logits.gather(-1, greedy.unsqueeze(-1)).squeeze(-1)
        self._broken[: len(largest)] = ~largest.isfinite()
        if not (self._any or self._static):
            return greedy
        rows = logits.shape[0]
        temperature = self._temperature[:rows].unsqueeze(-1)
        ordered, ids = (logits / temperature.clamp_min(1e-6)).sort(-1, descending=True)
        probability = ordered.softmax(-1)
        kept = self._kept(probability)
        mass = (probability * kept).cumsum(-1)
        wanted = self._uniform[:rows].unsqueeze(-1) * mass[:, -1:]
        place = (mass <= wanted).sum(-1, keepdim=True)
        last = kept.sum(-1, keepdim=True) - 1
        sampled = ids.gather(-1, torch.minimum(place, last)).squeeze(-1)
        return torch.where(self._temperature[:rows] > 0, sampled, greedy)

    def broken(self, count: int) -> list[bool]:
        """Of the first rows of the last choice: True where the logits were no numbers, and the choice means nothing."""
        found: list[bool] = self._broken[:count].tolist()
        return found

    def _kept(self, probability: Tensor) -> Tensor:
        """Which of the tokens, likeliest first, are in the top k and in the smallest set of probability p."""
        rows, vocabulary = probability.shape
        top_k = self._top_k[:rows].unsqueeze(-1)
        limit = torch.where(top_k > 0, top_k, vocabulary)
        rank = torch.arange(vocabulary, device=probability.device)
        before = probability.cumsum(-1) - probability
        return (rank < limit) & ((before < self._top_p[:rows].unsqueeze(-1)) | (rank == 0))
