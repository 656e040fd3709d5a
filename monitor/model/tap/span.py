"""The rows of a forward pass that belong to one request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Span:
    """Consecutive rows of a forward pass that belong to one request."""

    request_id: str
    first: int
    """Index of its first row in the pass."""
    count: int
    """Number of rows, which is the number of its tokens in the pass."""
    position: int
    """Position of the first of these tokens in the sequence."""
    draws: bool
    """True where the pass samples a new token for this request; False for a part of a prompt that is not the last."""
    elsewhere: bool = False
    """True where that token would be drawn from another row than the last one of these."""
