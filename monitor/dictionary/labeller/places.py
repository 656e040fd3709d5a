"""Places in windows of text: a token, the word that it belongs to, and what stands around it.

A label is about words, a feature fires on tokens: here tokens are put together to the words that a reader sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

_WORD = re.compile(r"<\|[^|<>\s]*\|>|\w+(?:['’]\w+)*|[^\w\s]+|\n+|[ \t]{2,}")
_NAME = re.compile(r"[^\W\d_]")
_CODE = re.compile(
    r"[{}=;<>()\[\]]|\b(?:def|import|return|self|const|var|function|class|None|int|void)\b|->|::|//"
)
_ROLE = re.compile(r"(?:<\|(?:im_start\|>)?)?\b(user|human|assistant|system)\b(?::|\|>|\n)", re.IGNORECASE)
_CODE_SIGNS = 5
"""A window counts as code from this number of brackets, operators and keywords."""
FROM_TEXT_START = 16
"""A window whose strongest token has fewer tokens before it begins where its text begins; see `DescribeOptions`."""


@dataclass(frozen=True, slots=True)
class Word:
    """A word, a run of punctuation, a line break or an indentation, with its characters `[start, end)`."""

    text: str
    start: int
    end: int


class Window:
    """A window of tokens, and the words in it."""

    def __init__(self, tokens: Sequence[str], *, opens_text: bool = False) -> None:
        """`opens_text` says that the window begins where its text begins."""
        self.tokens = tokens
        self.opens_text = opens_text
        self.text = "".join(tokens)
        self.words = [Word(m.group(), m.start(), m.end()) for m in _WORD.finditer(self.text)]
        self.starts: list[int] = []
        """Where each token begins in the text."""
        at = 0
        for token in tokens:
            self.starts.append(at)
            at += len(token)
        self._word_at = self._words_by_character()

    def _words_by_character(self) -> list[int]:
        """For each character the index of its word; −1 between words."""
        owner = [-1] * len(self.text)
        for index, word in enumerate(self.words):
            owner[word.start : word.end] = [index] * (word.end - word.start)
        return owner

    @cached_property
    def lowered(self) -> frozenset[str]:
        """The words with a letter in them, in lower case."""
        return frozenset(word.text.lower() for word in self.words if _NAME.match(word.text))

    @cached_property
    def is_code(self) -> bool:
        """True where brackets, operators and keywords abound."""
        return len(_CODE.findall(self.text)) >= _CODE_SIGNS

    @cached_property
    def roles(self) -> list[tuple[int, str]]:
        """Where each marker of a turn ends, and whose turn it opens: `user`, `assistant` or `system`."""
        return [
            (found.end(), "user" if found.group(1).lower() == "human" else found.group(1).lower())
            for found in _ROLE.finditer(self.text)
        ]

    def place(self, token: int) -> TokenPlace | None:
        """The place of a token; None where it has no text of its own."""
        text, start = self.tokens[token], self.starts[token]
        owners = [self._word_at[i] for i in range(start, start + len(text)) if self._word_at[i] >= 0]
        if not owners:
            return None
        # A token such as ` (` belongs to the word that it ends with; one such as `),` to the run of punctuation.
        return TokenPlace(self, token, owners[-1])

    def places(self, tokens: Iterator[int] | None = None) -> Iterator[TokenPlace]:
        """The places of these tokens, or of all."""
        for token in range(len(self.tokens)) if tokens is None else tokens:
            if (found := self.place(token)) is not None:
                yield found


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """One token of a window, and its word."""

    window: Window
    token: int
    index: int
    """Index of its word in the window."""

    @property
    def word(self) -> str:
        """The whole word as it is written; of a run of punctuation only what belongs to the token."""
        whole = self.window.words[self.index].text
        if _NAME.match(whole) or whole[0] in "\n \t<" or whole[0].isalnum() or whole[0] == "_":
            return whole
        return self.piece or whole

    @property
    def piece(self) -> str:
        """The token's own characters, without spaces around them."""
        return self.window.tokens[self.token].strip(" ")

    @property
    def begins(self) -> bool:
        """True where the token holds the first character of the word."""
        return self.window.starts[self.token] <= self.window.words[self.index].start

    @property
    def ends(self) -> bool:
        """True where the token holds the last character of the word."""
        end = self.window.starts[self.token] + len(self.window.tokens[self.token])
        return end >= self.window.words[self.index].end

    def neighbour(self, offset: int) -> str:
        """The word so many words away, as it is written; an empty text beyond the window."""
        at = self.index + offset
        return self.window.words[at].text if 0 <= at < len(self.window.words) else ""

    @property
    def opens_text(self) -> bool:
        """True for the first word of a text."""
        return self.index == 0 and self.window.opens_text

    @property
    def role(self) -> str:
        """Whose turn it is, where a marker of turns stands before the place; otherwise an empty text."""
        start = self.window.words[self.index].start
        return next((role for end, role in reversed(self.window.roles) if end <= start), "")

    @property
    def opens_turn(self) -> str:
        """Whose turn begins with this word; an empty text where none does."""
        word = self.window.words[self.index]
        for end, role in self.window.roles:
            if end <= word.start and not self.window.text[end : word.start].strip():
                return role
        return ""
