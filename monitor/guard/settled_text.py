"""Settled text: text that comes in pieces, as tokens that no later piece can change.

The pieces are those of another server, whose tokens are not those of the model that reads along. A word may go on in
the next piece, so its tokens are settled once the next word begins, or once nobody wants to wait for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""First character of a token in its text, and the first behind it."""
Tokenise = Callable[[str, bool], tuple[Sequence[int], Sequence[Span]]]
"""Token ids of a text and where each stands in it; the flag says that other text stands before it."""

_LONGEST = 64
"""Characters without a space between words after which tokens count as settled all the same."""
_KEPT = 16
"""Of these, the last ones, which may still change."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Tokens that are settled now."""

    ids: tuple[int, ...]
    ends: tuple[int, ...]
    """First character behind each token, counted over the whole text; never falls."""
    upto: int
    """Characters of the whole text that these and earlier tokens stand for."""


class SettledText:
    """One text on its way."""

    def __init__(self, tokenise: Tokenise) -> None:
        self._tokenise = tokenise
        self._held = ""
        self._settled = 0

    @property
    def length(self) -> int:
        """Characters that came."""
        return self._settled + len(self._held)

    @property
    def held(self) -> int:
        """Characters that are not settled yet."""
        return len(self._held)

    def push(self, piece: str) -> Settled:
        """What is settled now that this piece is known. Raises InputError where it cannot be tokenised."""
        self._held += whole_characters(piece)
        if cut := _between_words(self._held):
            return self._take(cut)
        return self._take(len(self._held) - _KEPT) if len(self._held) > _LONGEST else self._nothing()

    def finish(self) -> Settled:
        """All that came and was not settled. What comes later begins anew behind it."""
        if not self._held:
            return self._nothing()
        ids, spans = self._tokenise(self._held, self._settled > 0)
        return self._settle(ids, spans, len(self._held))

    def _nothing(self) -> Settled:
        return Settled((), (), self._settled)

    def _take(self, most: int) -> Settled:
        """The tokens that end at or before a character, as far as no other token reaches over their end."""
        ids, spans = self._tokenise(self._held, self._settled > 0)
        count = upto = reached = 0
        for number, (start, end) in enumerate(spans):
            if number and reached <= min(start, most):
                count, upto = number, reached
            if start > most:
                break
            reached = max(reached, end)
        return self._settle(ids[:count], spans[:count], upto) if count else self._nothing()

    def _settle(self, ids: Sequence[int], spans: Sequence[Span], upto: int) -> Settled:
        ends, last = [], self._settled
        for _, end in spans:
            last = max(last, self._settled + end)
            ends.append(last)
        self._held = self._held[upto:]
        self._settled += upto
        return Settled(tuple(ids), tuple(ends), self._settled)


class BrokenWords:
    """The words in which the parts of an answer broke off, for where a part goes on behind pieces of others.

    Somebody who joins its pieces reads the whole word, and so must the model.
    """

    def __init__(self) -> None:
        self._words: dict[str, str] = {}

    def before(self, part: str, piece: str) -> str:
        """What of a part is to be read once more before its next piece; empty where that begins with a new word."""
        return "" if piece[:1].isspace() else self._words.get(part, "")

    def wrote(self, part: str, piece: str) -> None:
        """A piece of a part has come."""
        words = (self._words.get(part, "") + piece)[-_LONGEST:].split()
        self._words[part] = words[-1] if words and not piece[-1:].isspace() else ""


def _between_words(text: str) -> int:
    """Where the last word begins, with the one space before it; 0 where there is no such place.

    Tokenizers take a single space to the word behind it. Of longer white space some belongs to what is before.
    """
    at = len(text) - 1
    while (at := text.rfind(" ", 1, at)) > 0:
        if not text[at - 1].isspace() and not text[at + 1].isspace():
            return at
    return 0


def whole_characters(text: str) -> str:
    """A text of the same length without half characters, which no tokenizer takes."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    return "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text)
