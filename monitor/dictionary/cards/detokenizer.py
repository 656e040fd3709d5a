"""`Detokenizer`: the text of each token of a sequence, such that the texts joined are the decoded sequence.

Decoding each token alone does not give that: a character may span several tokens, and some tokenizers drop the
leading space of a single token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_BROKEN = "\N{REPLACEMENT CHARACTER}"


class Detokenizer:
    """Turns token ids into texts with a tokenizer's `decode` function, and caches the texts of single tokens."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._known: dict[int, str] = {}

    def token(self, token_id: int) -> str:
        """The text of one token, decoded alone."""
        if token_id not in self._known:
            self._known[token_id] = self._decode([token_id])
        return self._known[token_id]

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text of each token. Where a character spans tokens, the last of them has it and the others are empty."""
        alone = [self.token(token_id) for token_id in ids]
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
