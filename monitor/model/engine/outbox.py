"""The events of a pass on their way out: collected while the pass is worked through, delivered once at its end."""

from __future__ import annotations

from monitor.model.engine.requests import Emit, Event


class Outbox:
    """Events for one of those who submit requests."""

    def __init__(self, emit: Emit) -> None:
        self.emit = emit
        self.users = 0
        """Requests that have not ended."""
        self.events: list[tuple[str, Event]] = []
        """Of requests, by their ids, in order."""

    def deliver(self) -> None:
        """Hand over what was collected."""
        if self.events:
            events, self.events = self.events, []
            self.emit(events)
