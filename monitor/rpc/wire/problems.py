"""Collects every wrong field of a request, each with its path in the message."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from monitor.errors import BadRequest, TooLong, Violation

_MOST = 64
"""Wrong fields that are noted; a message of megabytes may have a million."""


class Problems:
    """The wrong fields found so far. Call `raise_any` once a message has been read."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    @property
    def full(self) -> bool:
        """True once no further wrong field is noted."""
        return len(self._violations) >= _MOST

    def add(self, field: str, description: str) -> None:
        """Note one wrong field: its path, and a text that says what was found and what to write instead."""
        if not self.full:
            self._violations.append(Violation(field, description))

    def number(self, field: str, value: float, low: float, high: float) -> bool:
        """Note a value that is not a finite number within `low` to `high`, and return False for it."""
        if math.isfinite(value) and low <= value <= high:
            return True
        self.add(field, f"is {_plain(value)}; write a number from {_plain(low)} to {_plain(high)}")
        return False

    def raise_any(self) -> None:
        """Raise BadRequest with all wrong fields, if there are any."""
        if self._violations:
            raise BadRequest(*self._violations)


@contextmanager
def under(path: str) -> Iterator[None]:
    """Prefix the fields of a BadRequest that is raised in the block with `path`."""
    try:
        yield
    except BadRequest as error:
        kind = TooLong if isinstance(error, TooLong) else BadRequest
        raise kind(*(Violation(f"{path}.{v.field}", v.description) for v in error.violations)) from None


def _plain(number: float) -> str:
    """A number as text; whole numbers with all their digits."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
