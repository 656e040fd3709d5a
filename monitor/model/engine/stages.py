"""From which position on which clamps hold, so that a sequence that is computed again is what it was.

Knows positions and clamp rows. Does not know who decided on them. An engine that runs out of cache drops a sequence and
runs it again later: clamps that began in the midst of it must not reach back to its start then.
"""

from __future__ import annotations

from monitor.model.tap.clamps import ClampRow
from monitor.model.tap.span import Span


class Stages:
    """The clamps of one sequence that no longer hold, each with the position before which it did."""

    def __init__(self) -> None:
        self._past: list[tuple[int, ClampRow | None]] = []

    def begin(self, position: int, before: ClampRow | None) -> None:
        """Other clamps hold from a position on, which is not before the last such position."""
        if position > (self._past[-1][0] if self._past else 0):
            self._past.append((position, before))

    def of(self, span: Span, now: ClampRow | None) -> list[tuple[Span, ClampRow | None]]:
        """A span in parts of one stage each, in order; `now` holds behind all that are past."""
        if not self._past:
            return [(span, now)]
        first, end = span.position, span.position + span.count
        parts = []
        for until, row in [*self._past, (end, now)]:
            if first < (stop := min(until, end)):
                parts.append((_part(span, first, stop), row))
                first = stop
        return parts


def _part(span: Span, first: int, stop: int) -> Span:
    draws = span.draws and stop == span.position + span.count
    return Span(span.request_id, span.first + first - span.position, stop - first, first, draws)
