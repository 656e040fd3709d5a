"""Threads for work that would block the event loop, such as tokenising a long text or a full encode."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from monitor.errors import Overloaded
from monitor.telemetry.metrics.metrics import Metrics

T = TypeVar("T")


class ThreadPool:
    """A pool of threads with a bounded queue."""

    def __init__(self, name: str, threads: int, waiting: int, retry_after: float, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._limit = threads + waiting
        self._inside = 0
        self._retry_after = retry_after
        self._metrics = metrics

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread and return its result. Raises Overloaded where the queue is full."""
        if self._inside >= self._limit:
            self._metrics.rejected("queue")
            raise Overloaded(f"{self._limit} such requests wait already; try again", self._retry_after)
        self._inside += 1
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        future.add_done_callback(self._done)
        return await future

    def _done(self, _: asyncio.Future[T]) -> None:
        # Called when the work ends, not when its caller is cancelled: a thread cannot be interrupted.
        self._inside -= 1

    def stop(self) -> None:
        """Drop queued work. Running work is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
