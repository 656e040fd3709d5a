"""The live feed of decision records: each client of WatchDetections has a bounded queue. For the event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from monitor.errors import Overloaded, Unavailable
from monitor.telemetry.decisions.record import DecisionRecord
from monitor.telemetry.metrics.decisions import WatchMeter

Wanted = Callable[[DecisionRecord], bool]
"""True for the records that a client wants."""


class Subscription:
    """One client's queue of wanted records, oldest first. When it is full, the oldest record is dropped."""

    def __init__(self, wanted: Wanted, limit: int, meter: WatchMeter) -> None:
        self._wanted, self._limit, self._meter = wanted, limit, meter
        self._queue: deque[tuple[int, DecisionRecord]] = deque()
        self._changed = asyncio.Event()
        self._over = False
        self._live = True
        self.dropped = 0
        """Number of records that were dropped, since the beginning or since `start_replay`."""

    def offer(self, seq: int, record: DecisionRecord) -> None:
        """Queue a record if it is wanted. Drops the oldest where the queue is full."""
        if not self._wanted(record):
            return
        if len(self._queue) >= self._limit:
            self._queue.popleft()
            self.dropped += 1
            if self._live:
                self._meter.missed()
        self._queue.append((seq, record))
        self._changed.set()

    def close(self) -> None:
        """End the subscription: `next` returns None once the queue is empty."""
        self._over = True
        self._changed.set()

    def start_replay(self) -> None:
        """Empty the queue, because the client now reads these records from the log.

        Records that are dropped until `stop_replay` are in the log too, so they do not count as missed.
        """
        self._queue.clear()
        self.dropped = 0
        self._live = False

    def stop_replay(self) -> None:
        """The log has been read. Records that are dropped from now on are missed."""
        self._live = True

    async def next(self) -> tuple[int, DecisionRecord] | None:
        """The next record and its sequence number; None once the subscription is closed and its queue is empty."""
        while not self._queue:
            if self._over:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._queue.popleft()


class Feed:
    """Passes every record to all subscriptions. `publish` never waits."""

    def __init__(self, watchers: int, queue: int, retry_after: float, meter: WatchMeter) -> None:
        self._watchers, self._queue, self._retry_after, self._meter = watchers, queue, retry_after, meter
        self._open: set[Subscription] = set()
        self._over = False

    def publish(self, seq: int, record: DecisionRecord) -> None:
        """Offer a record to every subscription."""
        for subscription in self._open:
            subscription.offer(seq, record)

    @contextmanager
    def subscribe(self, wanted: Wanted) -> Iterator[Subscription]:
        """A subscription for the duration of the block.

        Raises Overloaded where there are too many, and Unavailable once the feed is closed.
        """
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
        """Close all subscriptions. Records that are queued can still be read."""
        self._over = True
        for subscription in self._open:
            subscription.close()
