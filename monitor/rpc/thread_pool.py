"""Threads for work that would block the event loop, such as tokenising a long text or a full encode."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from monitor.errors import Overloaded
from monitor.model.compute_threads import released
from monitor.telemetry.metrics.metrics import Metrics

T = TypeVar("T")


class _Piece:
    """One piece of work with the future that its caller awaits."""

    def __init__(self, work: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        self.work, self.done = work, done


class ThreadPool:
    """A pool of threads with a bounded queue, in which callers take turns. Used on one event loop.

    Work of a caller who has left is dropped unless it has begun. A thread cannot be interrupted, so work that has
    begun holds its place until it ends.
    """

    def __init__(self, name: str, threads: int, waiting: int, retry_after: float, metrics: Metrics) -> None:
        """At most `waiting` pieces of work wait, and at most half of them are one caller's."""
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._threads, self._most = threads, waiting
        self._retry_after, self._metrics = retry_after, metrics
        self._waiting: OrderedDict[str, deque[_Piece]] = OrderedDict()
        """Work by caller; the caller whose turn is next comes first."""
        self._running = 0

    async def run(self, work: Callable[[], T], caller: str = "") -> T:
        """Run `work` on a thread and return its result; `caller` is empty for one without a name.

        Raises Overloaded where too much work waits, of all callers or of this one.
        """
        self._check_room(caller)
        loop = asyncio.get_running_loop()
        piece = _Piece(work, loop.create_future())
        self._waiting.setdefault(caller, deque()).append(piece)
        self._begin_next(loop)
        try:
            result: T = await piece.done
        except asyncio.CancelledError:
            self._drop(caller, piece)
            raise
        return result

    def _check_room(self, caller: str) -> None:
        if self._running < self._threads:
            return
        waiting = sum(map(len, self._waiting.values()))
        mine = len(self._waiting.get(caller, ()))
        if waiting >= self._most or (caller and mine >= max(1, self._most // 2)):
            self._metrics.rejected("queue")
            raise Overloaded(f"{waiting} such requests wait already; try again", self._retry_after)

    def _drop(self, caller: str, piece: _Piece) -> None:
        """Take work out of the queue, unless it has begun."""
        pieces = self._waiting.get(caller, deque())
        with suppress(ValueError):
            pieces.remove(piece)
        if not pieces:
            self._waiting.pop(caller, None)

    def _begin_next(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._waiting and self._running < self._threads:
            caller, pieces = self._waiting.popitem(last=False)
            piece = pieces.popleft()
            if pieces:
                self._waiting[caller] = pieces  # behind everybody else
            self._running += 1
            future = self._pool.submit(released, piece.work)
            future.add_done_callback(partial(self._tell, loop, piece))

    def _tell(self, loop: asyncio.AbstractEventLoop, piece: _Piece, ended: Future[Any]) -> None:
        """Have the event loop go on, from the thread that did the work."""
        with suppress(RuntimeError):  # the loop is closed, because the server has stopped
            loop.call_soon_threadsafe(self._ended, loop, piece, ended)

    def _ended(self, loop: asyncio.AbstractEventLoop, piece: _Piece, ended: Future[Any]) -> None:
        self._running -= 1
        if not piece.done.done() and not ended.cancelled():
            if (error := ended.exception()) is not None:
                piece.done.set_exception(error)
            else:
                piece.done.set_result(ended.result())
        self._begin_next(loop)

    def stop(self) -> None:
        """Drop queued work. Running work is not waited for."""
        for pieces in self._waiting.values():
            for piece in pieces:
                piece.done.cancel()
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
