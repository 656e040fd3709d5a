"""Texts packed one after another into rows of token ids of one length, which a model reads in one forward pass each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from monitor.errors import ConfigurationError

Tokenise = Callable[[list[str]], list[list[int]]]
"""Maps texts to the token ids of each, without the tokens that begin a text."""
_TOGETHER = 64
"""Texts that are tokenised at a time."""


@dataclass(frozen=True)
class PackedText:
    """One row `[length]`, or a batch of rows `[rows, length]`. A row may hold several documents or part of one."""

    ids: Tensor
    """Token ids."""
    documents: Tensor
    """Index of each token's document, never decreasing."""

    @property
    def positions(self) -> Tensor:
        """Position of each token in its document, counted from 0 where the document begins or goes on in a row."""
        at = torch.arange(self.ids.shape[-1], device=self.ids.device).expand_as(self.ids)
        begins = torch.ones_like(self.ids, dtype=torch.bool)
        begins[..., 1:] = self.documents[..., 1:] != self.documents[..., :-1]
        first = torch.where(begins, at, 0)
        return at - first.cummax(-1).values

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.ids.numel()

    @classmethod
    def stacked(cls, rows: Sequence[PackedText]) -> PackedText:
        """Rows as one batch."""
        return cls(torch.stack([row.ids for row in rows]), torch.stack([row.documents for row in rows]))


def pack(
    texts: Iterable[str], tokenise: Tokenise, length: int, start: Sequence[int] = ()
) -> Iterator[PackedText]:
    """Rows of `length` tokens, packed from one document after the other.

    Each document begins with the tokens `start`, and so does each row in the midst of one: a model reads a row from its
    beginning. Tokens that do not fill the last row are dropped. Raises ConfigurationError where a row has no room for
    a token behind `start`.
    """
    if length <= len(start):
        raise ConfigurationError(
            f"rows of {length} tokens hold nothing but the start of a text; give longer ones"
        )
    source, number = iter(texts), 0
    ids: list[int] = []
    documents: list[int] = []
    begins: list[bool] = []
    while group := list(islice(source, _TOGETHER)):
        for own in tokenise(group):
            new = [*start, *own]
            ids += new
            documents += [number] * len(new)
            begins += [True, *[False] * (len(new) - 1)] if new else []
            number += 1
        at = 0
        while True:
            head = [] if at < len(ids) and begins[at] else list(start)
            taken = length - len(head)
            if at + taken > len(ids):
                break
            where = slice(at, at + taken)
            yield PackedText(
                torch.tensor(head + ids[where]),
                torch.tensor([documents[at]] * len(head) + documents[where]),
            )
            at += taken
        del ids[:at], documents[:at], begins[:at]


def batches(rows: Iterable[PackedText], count: int) -> Iterator[PackedText]:
    """Batches of `count` rows; the last may have fewer."""
    source = iter(rows)
    while group := list(islice(source, count)):
        yield PackedText.stacked(group)
