"""Which rows of a pass belong to which request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Span:
    """Consecutive rows of a pass that belong to one request."""

    request_id: str
    first: int
    count: int
    position: int
    """Position of the first of these tokens in its sequence."""
    draws: bool
    """True where the pass draws a new token for this request."""
