"""`Pace`: a line about every minute with the tokens so far, their rate and the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 60.0
"""Seconds between lines."""


class Pace:
    """Counts tokens and tells how fast they come."""

    def __init__(self, tell: Callable[[str], None], every: float = EVERY) -> None:
        self._tell, self._every = tell, every
        self._started = self._told = time.monotonic()
        self.tokens = 0
        self.done = 0.0
        """Share of the work that is finished, 0 to 1."""

    def add(self, tokens: int) -> None:
        """Count tokens."""
        self.tokens += tokens
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            seconds = now - self._started
            left = f", about {seconds / self.done * (1 - self.done) / 60:.0f} min left" if self.done else ""
            self._tell(f"{self.tokens:>10,} tokens, {self.tokens / seconds:,.0f} a second{left}")
