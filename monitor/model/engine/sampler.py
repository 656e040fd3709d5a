"""The choice of the next token of every request in a batch, each by its own settings.

No vocabulary is sorted. A token is drawn by inverting the distribution at a number in [0, 1): first the stretch of the
vocabulary in which it falls, then the place in that. Requests with `top_k` or `top_p` draw from their likeliest tokens
alone. A seeded request has random numbers of its own. Its tokens still depend on what runs beside it, as far as the
model's logits do: they are rounded otherwise in a batch.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from monitor.model.tap.transfers import HostCopies, to_device
from monitor.records import Sampling

_STRETCH = 256
"""Tokens of the vocabulary that are summed up before one of them is chosen."""
_FIRST = 64
"""Of how many of the likeliest tokens a request with `top_p` is tried first."""
_BITS = 31
"""Of a positive float32, whose order is that of its bits."""
_anybody = random.Random()
_UNLIKELY = -9999.0
"""What is told for the logarithm of 0, which JSON cannot write."""


class Likelihoods(NamedTuple):
    """Natural logarithms of the model's distribution at one step, before any setting of the sampling."""

    logprob: float
    """Of the token that was drawn."""
    likeliest: tuple[tuple[int, float], ...]
    """Ids and values of the likeliest tokens, the likeliest first."""


class Draw:
    """One request's settings and its own stream of random numbers."""

    def __init__(self, sampling: Sampling, logprobs: int | None = None) -> None:
        """`logprobs`: how many of the likeliest tokens are to be told at each draw; None: nothing."""
        self.sampling, self.logprobs = sampling, logprobs
        self.greedy = sampling.temperature == 0
        """True where no randomness is wanted."""
        self._random = _anybody if sampling.seed is None else random.Random(sampling.seed)
        self._next: deque[float] = deque()
        self._awaited = 0
        """Tokens that are being drawn, and were neither taken nor left."""

    def uniform(self) -> float:
        """The number in [0, 1) for the next token that nobody awaits yet; the same one until `awaited` or `taken`."""
        while len(self._next) <= self._awaited:
            self._next.append(self._random.random())
        return self._next[self._awaited]

    def awaited(self) -> None:
        """A pass that draws a token is on its way, and the next is laid out before it is over."""
        self._awaited += 1

    def arrived(self) -> None:
        """Such a pass is over, or will not be looked at. What was drawn is `taken`, or its number stays."""
        self._awaited = max(0, self._awaited - 1)

    def taken(self) -> None:
        """A token was taken, so the next has a number of its own.

        A token that nobody takes, because the sequence is run again, uses none up: whether a pass over a prompt draws
        one depends on how the prompt was split, and so on what ran beside it.
        """
        if self._next:
            self._next.popleft()


@dataclass(frozen=True, eq=False)
class ChoiceCopy:
    """What a choice of tokens tells beside them, on its way to the host."""

    copies: HostCopies
    unusable: Tensor
    """`[rows]` True where the logits were no numbers."""
    asked: Mapping[int, int]
    """Rows for which log-probabilities were wanted, and of how many tokens."""
    told: tuple[Tensor, Tensor, Tensor] | None
    """Of those rows: logarithms of the drawn tokens, of the likeliest, and ids of these."""

    def broken(self) -> frozenset[int]:
        """Rows whose logits were no numbers, so that the choice means nothing."""
        self.copies.wait()
        found = self.unusable.numpy()
        return frozenset(found.nonzero()[0].tolist()) if found.any() else frozenset()

    def likelihoods(self) -> Mapping[int, Likelihoods]:
        """Log-probabilities by row; only of rows for which they were asked."""
        if self.told is None:
            return {}
        self.copies.wait()
        drawn, values, ids = (part.tolist() for part in self.told)
        return {
            row: Likelihoods(drawn[at], tuple(zip(ids[at][:most], values[at][:most], strict=True)))
            for at, (row, most) in enumerate(self.asked.items())
        }


class Sampler:
    """Greedy, temperature, top-k and top-p by row."""

    def __init__(self, rows: int, device: torch.device, *, static: bool = False) -> None:
        place: dict[str, Any] = {"device": device}
        self._temperature = torch.zeros(rows, **place)
        self._top_k = torch.zeros(rows, dtype=torch.int64, **place)
        self._top_p = torch.ones(rows, **place)
        self._uniform = torch.zeros(rows, dtype=torch.float64, **place)
        self._broken = torch.zeros(rows, dtype=torch.bool, **place)
        self._chosen = 0
        """Rows of the last choice."""
        self._static = static
        self._drawn: list[int] = []
        """Rows that are not greedy."""
        self._cut: list[int] = []
        """Places in `_drawn` of rows with `top_k` or `top_p`."""
        self._asked: dict[int, int] = {}
        """Rows for which log-probabilities are wanted, and of how many tokens."""
        self._told: tuple[Tensor, Tensor, Tensor] | None = None
        """Of those rows after a choice: logarithms of the drawn tokens, of the likeliest, and ids of these."""

    @property
    def tells(self) -> bool:
        """True where the next choice keeps log-probabilities, which no captured graph does."""
        return bool(self._asked)

    def prepare(self, requests: Sequence[Draw | None]) -> None:
        """Settings of the rows that will get a new token, in row order (None: nobody waits for it any more)."""
        drawn = [(row, draw) for row, draw in enumerate(requests) if draw is not None and not draw.greedy]
        self._drawn = [row for row, _ in drawn]
        settings = [draw.sampling for _, draw in drawn]
        self._cut = [i for i, s in enumerate(settings) if s.top_k or s.top_p < 1]
        self._told = None
        self._asked = {
            row: draw.logprobs
            for row, draw in enumerate(requests)
            if draw is not None and draw.logprobs is not None
        }
        if self._static:
            self._temperature[: len(requests)] = 0.0
        if not drawn:
            return
        # A captured graph reads every row's settings where they always stand.
        rows = self._on_device(self._drawn) if self._static else slice(0, len(drawn))
        wanted: list[tuple[Tensor, list[float]]] = [
            (self._temperature, [s.temperature for s in settings]),
            (self._uniform, [draw.uniform() for _, draw in drawn]),
        ]
        if self._cut or self._static:
            wanted += [(self._top_k, [s.top_k for s in settings]), (self._top_p, [s.top_p for s in settings])]
        for kept, values in wanted:
            kept[rows] = to_device(values, kept.dtype, kept.device)

    def choose(self, logits: Tensor) -> Tensor:
        """Next token ids `[rows]` from logits `[rows, vocabulary]`, float32."""
        chosen = self._choose(logits)
        if self._asked:
            self._tell(logits, chosen)
        return chosen

    def choice(self, count: int) -> ChoiceCopy:
        """What the last choice tells of its first rows. Another may be made at once."""
        copies = HostCopies(self._broken.device)
        unusable = copies.add(self._broken[:count])
        told = self._told
        if told is not None:
            told = copies.add(told[0]), copies.add(told[1]), copies.add(told[2])
        copies.sent()
        return ChoiceCopy(copies, unusable, self._asked, told)

    def _on_device(self, rows: Sequence[int]) -> Tensor:
        return to_device(rows, torch.int64, self._broken.device)

    def _tell(self, logits: Tensor, chosen: Tensor) -> None:
        rows = self._on_device(list(self._asked))
        logs = logits[rows].log_softmax(-1).clamp_min_(_UNLIKELY)
        values, ids = logs.topk(min(max(self._asked.values()), logs.shape[-1]), dim=-1)
        self._told = logs.gather(-1, chosen[rows].unsqueeze(-1)).squeeze(-1), values, ids

    def _choose(self, logits: Tensor) -> Tensor:
        self._chosen = rows = len(logits)
        # Of a row that holds NaN, the largest is NaN.
        largest = logits.amax(-1)
        self._broken[:rows] = ~largest.isfinite()
        if self._static:
            return self._choose_static(logits, largest)
        if len(self._drawn) == rows:
            return self._draw(logits, largest)
        greedy = _argmax(logits)
        if self._drawn:
            mine = self._on_device(self._drawn)
            greedy[mine] = self._draw(logits[mine], largest[mine])
        return greedy

    def finite(self) -> bool:
        """True where all logits of the last choice were numbers, those of rows that draw nothing included."""
        return not bool(self._broken[: self._chosen].any())

    def _draw(self, logits: Tensor, largest: Tensor) -> Tensor:
        """Tokens `[rows]` of rows that are not greedy, as `prepare` noted them."""
        weights = _weights(logits, largest, self._temperature[: len(logits)])
        if not self._cut:
            return _invert(weights, self._uniform[: len(logits)])
        out = _invert(weights, self._uniform[: len(logits)])
        mine = self._on_device(self._cut)
        self._draw_cut(out, weights, mine, _FIRST)
        return out

    def _draw_cut(self, out: Tensor, weights: Tensor, rows: Tensor, count: int) -> None:
        """Draw for some rows from their likeliest tokens: the top k, and of these the smallest set of probability p.

        Rows for which `count` tokens are too few go on with more, each for itself: which of equally likely tokens
        come first may depend on how many are asked for.
        """
        mine, vocabulary = weights[rows], weights.shape[-1]
        count = min(vocabulary, count)
        top_k = self._top_k[rows].unsqueeze(-1)
        limit = torch.where(top_k > 0, top_k, vocabulary)
        wanted = self._top_p[rows].unsqueeze(-1).double() * mine.sum(-1, keepdim=True, dtype=torch.float64)
        likeliest, ids = mine.topk(count, dim=-1)
        mass = likeliest.double().cumsum(-1)
        rank = torch.arange(count, device=mine.device)
        kept = (rank < limit) & ((mass - likeliest < wanted) | (rank == 0))
        place = _invert(likeliest * kept, self._uniform[rows])
        out[rows] = ids.gather(-1, place.unsqueeze(-1)).squeeze(-1)
        short = ((mass[:, -1:] < wanted) & (limit > count)).squeeze(-1)
        if count < vocabulary and bool(short.any()):
            self._draw_cut(out, weights, rows[short], 8 * count)

    def _choose_static(self, logits: Tensor, largest: Tensor) -> Tensor:
        """The same in steps that do not depend on any setting, for a captured graph.

        What is kept is found by the weight of the last token that is: its bits are searched one by one.
        """
        rows, vocabulary = logits.shape
        temperature = self._temperature[:rows]
        weights = _weights(logits, largest, temperature)
        top_k = self._top_k[:rows].unsqueeze(-1)
        limit = torch.where(top_k > 0, top_k, vocabulary)
        wanted = self._top_p[:rows].unsqueeze(-1) * weights.sum(-1, keepdim=True)
        order = weights.view(torch.int32)
        by_mass, by_count = torch.zeros_like(order[:, :1]), torch.zeros_like(order[:, :1])
        for bit in range(_BITS - 1, -1, -1):
            tried = by_mass | (1 << bit)
            enough = torch.where(order >= tried, weights, 0).sum(-1, keepdim=True) >= wanted
            by_mass = torch.where(enough, tried, by_mass)
            tried = by_count | (1 << bit)
            by_count = torch.where((order >= tried).sum(-1, keepdim=True) >= limit, tried, by_count)
        kept = (order >= by_count) & ((order >= by_mass) | (self._top_p[:rows].unsqueeze(-1) >= 1))
        drawn = _invert(torch.where(kept, weights, 0), self._uniform[:rows])
        return torch.where(temperature > 0, drawn, logits.argmax(-1))


def _weights(logits: Tensor, largest: Tensor, temperature: Tensor) -> Tensor:
    """Of each token `[rows, vocabulary]` the probability, as a multiple of the likeliest's."""
    # In place: another block of this size may cost page faults in every pass.
    return (logits - largest.unsqueeze(-1)).div_(temperature.clamp_min(1e-6).unsqueeze(-1)).exp_()


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """Places `[rows]` at which the running sum of `[rows, places]` weights first exceeds a share of the whole."""
    rows, width = weights.shape
    if rest := -width % _STRETCH:
        weights = pad(weights, (0, rest))
    parts = weights.view(rows, -1, _STRETCH)
    sums = parts.sum(-1, dtype=torch.float64).cumsum(-1)
    wanted = uniform.unsqueeze(-1) * sums[:, -1:]
    stretch = (sums <= wanted).sum(-1, keepdim=True).clamp_max(sums.shape[1] - 1)
    before = torch.where(stretch > 0, sums.gather(-1, (stretch - 1).clamp_min(0)), 0.0)
    inside = parts.gather(1, stretch.unsqueeze(-1).expand(rows, 1, _STRETCH)).squeeze(1)
    place = (inside.double().cumsum(-1) <= wanted - before).sum(-1, keepdim=True)
    # Sums that were rounded otherwise must not lead beyond the last token that has any weight.
    last = torch.where(inside > 0, torch.arange(_STRETCH, device=weights.device), 0).amax(-1, keepdim=True)
    return (stretch * _STRETCH + torch.minimum(place, last)).squeeze(-1)


def _argmax(logits: Tensor) -> Tensor:
    """The likeliest token of each row, the first of equals."""
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.from_numpy(logits.numpy().argmax(-1))  # several times as fast
