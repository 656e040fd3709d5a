"""The hop from the engine's and the scorer's threads to the event loop: once a pass, for all requests."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from monitor.errors import MonitorError

T = TypeVar("T")


class Mailbox(Generic[T]):
    """What was sent to one request, read by one coroutine, in order. Lives on the event loop.

    Nothing bounds it but its senders: a request is sent at most one event per token.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._woken = asyncio.Event()
        self._error: MonitorError | None = None

    def put(self, item: T) -> None:
        """Something came."""
        self._items.append(item)
        self._woken.set()

    def fail(self, error: MonitorError) -> None:
        """Nothing more will come; the reader gets `error` once it has read the rest."""
        self._error = error
        self._woken.set()

    async def read(self) -> list[T]:
        """Everything that came since the last read; waits until there is something."""
        while not self._items:
            if self._error is not None:
                raise self._error
            self._woken.clear()
            await self._woken.wait()
        items = list(self._items)
        self._items.clear()
        return items


class PostOffice(Generic[T]):
    """The mailboxes of all requests that somebody waits for. Lives on the event loop, but for `deliver`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._boxes: dict[str, Mailbox[T]] = {}

    @contextmanager
    def box(self, request_id: str) -> Iterator[Mailbox[T]]:
        """A mailbox for a request, whose id no other has."""
        box = self._boxes[request_id] = Mailbox()
        try:
            yield box
        finally:
            del self._boxes[request_id]

    def deliver(self, items: Sequence[tuple[str, T]]) -> None:
        """What a pass has, by request id. The loop is called once; one that has ended has nobody left to read."""
        try:
            self._loop.call_soon_threadsafe(self._sort, items)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def fail_all(self, error: MonitorError) -> None:
        """Tell everybody who waits that nothing more will come."""
        for box in self._boxes.values():
            box.fail(error)

    def _sort(self, items: Sequence[tuple[str, T]]) -> None:
        for request_id, item in items:
            box = self._boxes.get(request_id)  # None: its caller has left
            if box is not None:
                box.put(item)
