"""Work that would hold up the event loop: long texts to tokenise, whole dictionaries to encode.

Knows threads. Does not know messages.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from monitor.errors import Overloaded
from monitor.telemetry.metrics.metrics import Metrics

T = TypeVar("T")


class ThreadPool:
    """Threads with a bounded queue in front of them."""

    def __init__(self, name: str, threads: int, waiting: int, retry_after: float, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._limit = threads + waiting
        self._inside = 0
        self._retry_after = retry_after
        self._metrics = metrics

    async def run(self, work: Callable[[], T]) -> T:
        """The result of `work`, done on a thread. Raises Overloaded where too much waits."""
        if self._inside >= self._limit:
            self._metrics.rejected("queue")
            raise Overloaded(f"{self._limit} such requests wait already; try again", self._retry_after)
        self._inside += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._done)
        return await future

    def _done(self, _: asyncio.Future[T]) -> None:
        # Not when the caller leaves: a thread cannot be interrupted, so its place stays taken until it ends.
        self._inside -= 1

    def stop(self) -> None:
        """Drop what waits; what runs ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)
