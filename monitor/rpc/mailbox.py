"""The hop from the engine's and the scorer's threads to the event loop.

Knows threads and asyncio. Does not know what is posted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

from monitor.errors import MonitorError

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Posted from any thread, read by one coroutine, in order.

    However much is posted before the reader wakes, the loop is called once. Nothing bounds it but its posters:
    a request posts at most one event per token.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._posted: deque[T] = deque()
        self._woken = asyncio.Event()
        self._calling = False
        self._error: MonitorError | None = None

    def post(self, item: T) -> None:
        """Called on a foreign thread. A loop that has ended takes nothing, and nobody is left to read."""
        self._posted.append(item)
        if self._calling:
            return
        self._calling = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def fail(self, error: MonitorError) -> None:
        """Called on the loop: nothing more will be posted; the reader gets `error` once it has read the rest."""
        self._error = error
        self._woken.set()

    def _wake(self) -> None:
        self._calling = False
        self._woken.set()

    async def read(self) -> list[T]:
        """Everything posted since the last read; waits until there is something."""
        while not self._posted:
            if self._error is not None:
                raise self._error
            self._woken.clear()
            await self._woken.wait()
        return [self._posted.popleft() for _ in range(len(self._posted))]
