"""Whether a written text shows what a demonstration is about, decided by patterns that are stated in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

LEAST_DIFFERENT = 0.5
"""A text of which a smaller share of the words is different is a loop."""


@dataclass(frozen=True)
class Judgement:
    """A text shows it where enough patterns occur in it, none that excludes it does, and it is no loop."""

    says: str
    """The rule in words, for tables."""
    patterns: tuple[str, ...]
    """Regular expressions; each counts once, in whatever case. Word boundaries are put around each."""
    least: int = 1
    """How many of them must occur."""
    unless: tuple[str, ...] = ()
    """Regular expressions of which none may occur."""

    @cached_property
    def _wanted(self) -> Sequence[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.patterns]

    @cached_property
    def _excluded(self) -> Sequence[re.Pattern[str]]:
        return [_compiled(pattern) for pattern in self.unless]

    def count(self, text: str) -> int:
        """How many of the patterns occur; 0 where one does that excludes the text."""
        if any(pattern.search(text) for pattern in self._excluded):
            return 0
        return sum(pattern.search(text) is not None for pattern in self._wanted)

    def holds(self, text: str) -> bool:
        """Whether the text shows it."""
        return self.count(text) >= self.least and not loops(text)

    def degree(self, text: str) -> float:
        """How clearly it does, from 0 to 1: by this features and strengths are chosen on development prompts."""
        clear = min(1.0, self.count(text) / (2 * self.least))
        return clear / 4 if loops(text) else clear


def loops(text: str) -> bool:
    """Whether the model has lost itself: it wrote nothing, or goes round a few words.

    That is a text of eight words or more of which less than half are different, or of a single unbroken run of more
    than 60 characters.
    """
    words = re.findall(r"\w+|[^\w\s]+", text.lower())
    if not words:
        return True
    if any(len(run) > 60 for run in text.split()):
        return True
    return len(words) >= 8 and len(set(words)) < LEAST_DIFFERENT * len(words)


def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{pattern})(?!\w)", re.IGNORECASE)
