"""Collecting every wrong field of a request, each under its path in the message.

Knows paths. Does not know which fields there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from monitor.errors import BadRequest, TooLong, Violation


class Problems:
    """Violations found so far. `raise_any` ends the reading of a message."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note one wrong field: its path, and what was found and what to write instead."""
        self._violations.append(Violation(field, description))

    def number(self, field: str, value: float, low: float, high: float) -> None:
        """Note a value that is not a finite number within `low` to `high`."""
        if not (math.isfinite(value) and low <= value <= high):
            self.add(field, f"is {_plain(value)}; write a number from {_plain(low)} to {_plain(high)}")

    def raise_any(self) -> None:
        """BadRequest with everything that was noted, if anything was."""
        if self._violations:
            raise BadRequest(*self._violations)


@contextmanager
def under(path: str) -> Iterator[None]:
    """Within it, fields of BadRequest are relative to `path`; outside they are paths in the whole message."""
    try:
        yield
    except BadRequest as error:
        kind = TooLong if isinstance(error, TooLong) else BadRequest
        raise kind(*(Violation(f"{path}.{v.field}", v.description) for v in error.violations)) from None


def _plain(number: float) -> str:
    """A number as people write it: whole ones with all their digits."""
    return str(int(number)) if float(number).is_integer() else f"{number:g}"
