"""Live records for those who watch: each has a bounded queue, and learns how many records did not fit.

Lives on the event loop. Does not know how a record is sent, nor which ones a watcher wants beyond the test it gives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from monitor.errors import Overloaded, Unavailable
from monitor.telemetry.decisions.record import DecisionRecord
from monitor.telemetry.metrics.decisions import WatchMeter

Wanted = Callable[[DecisionRecord], bool]


class Subscription:
    """One watcher's queue: the newest records that it wants, oldest first."""

    def __init__(self, wanted: Wanted, limit: int, meter: WatchMeter) -> None:
        self._wanted, self._limit, self._meter = wanted, limit, meter
        self._queue: deque[tuple[int, DecisionRecord]] = deque()
        self._changed = asyncio.Event()
        self._over = False
        self._live = True
        self.dropped = 0
        """Records that did not fit, since the beginning or `restart`."""

    def offer(self, seq: int, record: DecisionRecord) -> None:
        """Take a record if it is wanted; the oldest makes room for it."""
        if not self._wanted(record):
            return
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
            if self._live:
                self._meter.missed()
        self._queue.append((seq, record))
        self._changed.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._over = True
        self._changed.set()

    def restart(self) -> None:
        """Forget what is queued: the watcher reads it from the log, and misses nothing until `go_live`."""
        self._queue.clear()
        self.dropped = 0
        self._live = False

    def go_live(self) -> None:
        """The log has been read: what does not fit from now on is missed."""
        self._live = True

    async def next(self) -> tuple[int, DecisionRecord] | None:
        """The next record and its number; None once the feed has ended and all was taken."""
        while not self._queue:
            if self._over:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._queue.popleft()


class Feed:
    """Hands every record to every watcher. `publish` never waits."""

    def __init__(self, watchers: int, queue: int, retry_after: float, meter: WatchMeter) -> None:
        self._watchers, self._queue, self._retry_after, self._meter = watchers, queue, retry_after, meter
        self._open: set[Subscription] = set()
        self._over = False

    def publish(self, seq: int, record: DecisionRecord) -> None:
        """Offer a record to everybody who watches."""
        for subscription in self._open:
            subscription.offer(seq, record)

    @contextmanager
    def subscribe(self, wanted: Wanted) -> Iterator[Subscription]:
        """A queue that fills until the end of the block. Raises Overloaded or Unavailable."""
        if self._over:
            raise Unavailable("the server is shutting down; try another one")
        if len(self._open) >= self._watchers:
            raise Overloaded(f"{self._watchers} streams watch already; try again", self._retry_after)
        subscription = Subscription(wanted, self._queue, self._meter)
        self._open.add(subscription)
        self._meter.streams(len(self._open))
        try:
            yield subscription
        finally:
            self._open.discard(subscription)
            self._meter.streams(len(self._open))

    def close(self) -> None:
        """End every stream once it has sent what is queued."""
        self._over = True
        for subscription in self._open:
            subscription.end()
