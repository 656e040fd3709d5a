"""The text of each token of a sequence, so that the pieces joined are the decoded text.

Knows how pieces of characters and swallowed spaces are handed back by tokenizers. Does not know any tokenizer:
the caller gives `decode`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Speller:
    """Spells token ids with a tokenizer's `decode`, remembering single tokens."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._known: dict[int, str] = {}

    def one(self, token_id: int) -> str:
        """The text of one token on its own."""
        if token_id not in self._known:
            self._known[token_id] = self._decode([token_id])
        return self._known[token_id]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One text per id; where a character spans tokens, the last of them has it and the others are empty."""
        alone = [self.one(token_id) for token_id in ids]
        text = self._decode(list(ids))
        return alone if "".join(alone) == text else self._by_prefix(ids)

    def _by_prefix(self, ids: Sequence[int]) -> list[str]:
        pieces, done = [], ""
        for end in range(1, len(ids) + 1):
            text = self._decode(list(ids[:end]))
            unfinished = text.endswith(_BROKEN) and end < len(ids)
            pieces.append("" if unfinished else text[len(done) :])
            done = done if unfinished else text
        return pieces
