"""Documents cut into rows of one length, remembering which token is of which document.

Knows token ids. Does not know a tokenizer: tokenising is a function it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedRow:
    """One row for a forward pass."""

    ids: Tensor
    """`[length]` token ids."""
    documents: Tensor
    """`[length]`: number of each token's document, never decreasing from row to row."""


def packed(
    texts: Iterable[str], tokenise: Callable[[str], list[int]], length: int, bos: int | None
) -> Iterator[PackedRow]:
    """Rows of documents one after the other; each document and each row begin with `bos` where there is one.

    `tokenise` gives the ids of a text without special tokens. What does not fill the last row is dropped.
    """
    start = [] if bos is None else [bos]
    ids: list[int] = []
    documents: list[int] = []
    for number, text in enumerate(texts):
        new = [*start, *tokenise(text)]
        ids.extend(new)
        documents.extend([number] * len(new))
        while len(ids) >= length:
            yield PackedRow(torch.tensor(ids[:length]), torch.tensor(documents[:length]))
            ids, documents = ids[length:], documents[length:]
            if start and ids and ids[0] != bos:
                ids, documents = [*start, *ids], [documents[0], *documents]
