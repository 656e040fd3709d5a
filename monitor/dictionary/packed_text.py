"""Texts packed one after another into rows of token ids of one length, which a model reads in one forward pass each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from monitor.errors import ConfigurationError

Document = str | tuple[Mapping[str, str], ...]
"""A text, or the turns of a conversation as `{"role": …, "content": …}`."""

Tokenise = Callable[[list[Document]], list[list[int]]]
"""Maps documents to the token ids of each, begun as the model is to read them."""
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


def characters_of(document: Document) -> int:
    """Number of characters that somebody wrote in a document."""
    return len(document) if isinstance(document, str) else sum(len(turn["content"]) for turn in document)


def plain(document: Document) -> str:
    """A document as text: the contents of a conversation, one after the other."""
    return document if isinstance(document, str) else "\n\n".join(turn["content"] for turn in document)


def shortened(document: Document, characters: int) -> Document:
    """The beginning of a document: so many characters of a text, or the turns of a conversation that fit in them."""
    if isinstance(document, str):
        return document[:characters]
    kept: list[Mapping[str, str]] = []
    left = characters
    for turn in document:
        if kept and len(turn["content"]) > left:
            break
        kept.append({**turn, "content": turn["content"][:left]})
        left -= len(turn["content"])
    return tuple(kept)


def document_of(record: Any) -> Document:
    """The document in a JSON object, under `text` or `messages`. Raises ValueError with what to write instead."""
    if isinstance(record, Mapping) and "messages" in record and "text" not in record:
        return _turns(record["messages"])
    text = record.get("text") if isinstance(record, Mapping) else None
    if not isinstance(text, str):
        raise ValueError('write {"text": "…"}, or {"messages": [{"role": "user", "content": "…"}]}')
    _check_encodable(text)
    return text


def _turns(messages: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(messages, list) or not messages:
        raise ValueError('"messages" is not a list of messages; write [{"role": "user", "content": "…"}]')
    for message in messages:
        parts = (message.get(name) if isinstance(message, Mapping) else None for name in ("role", "content"))
        if not all(isinstance(part, str) and part for part in parts):
            raise ValueError('a message lacks "role" or "content", which are texts')
        _check_encodable(message["content"])
    return tuple({"role": message["role"], "content": message["content"]} for message in messages)


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("the text holds half a surrogate pair, which is no character") from None


def pack(
    texts: Iterable[Document], tokenise: Tokenise, length: int, start: Sequence[int] = ()
) -> Iterator[PackedText]:
    """Rows of `length` tokens, packed from one document after the other.

    Each row in the midst of a document begins with the tokens `start`: a model reads a row from its beginning. Tokens
    that do not fill the last row are dropped. Raises ConfigurationError where a row has no room for
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
        for new in tokenise(group):
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
