"""Admission of calls: count those in progress, and refuse others. Used on the event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from monitor.errors import Overloaded, Unavailable
from monitor.telemetry.metrics.metrics import Metrics


class Admission:
    """Counts calls in progress. Refuses calls beyond `limit`, while `full()` is true, and once the server drains."""

    def __init__(
        self, limit: int, retry_after: float, metrics: Metrics, full: Callable[[], bool] = lambda: False
    ) -> None:
        self._limit = limit
        self._retry_after = retry_after
        self._metrics = metrics
        self._full = full
        self._inside = 0
        self._draining = False
        self._over = asyncio.Event()
        self._over.set()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count one call for the duration of the block. Raises Overloaded or Unavailable where it may not begin."""
        if self._draining:
            self._metrics.rejected("draining")
            raise Unavailable("the server is shutting down; try another one")
        if self._inside >= self._limit:
            self._metrics.rejected("calls")
            raise Overloaded(f"{self._limit} calls are in progress; try again", self._retry_after)
        if self._full():
            self._metrics.rejected("memory")
            raise Overloaded("the server has no memory for another call; try again", self._retry_after)
        self._inside += 1
        try:
            yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._over.set()

    async def drain(self, grace: float) -> bool:
        """Refuse all further calls and wait for the others.

        Returns True once all have ended, False after `grace` seconds or after `hurry`.
        """
        self._draining = True
        if self._inside:
            self._over.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), grace)
        return not self._inside

    def hurry(self) -> None:
        """End a `drain` in progress at once."""
        self._over.set()
