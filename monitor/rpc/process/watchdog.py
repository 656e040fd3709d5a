"""Whether work stands still: requests are there and no pass ends, so that only a new process helps.

Knows queues by the numbers that they tell, and how to end a process that hangs. Does not know engines or passes. A
device that never answers raises nothing: the thread that waits for it looks alive.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog

_UNSEEN = 15.0
"""Seconds between two looks that are believed. Where the whole machine stood still, nobody is to blame."""
_LAST_RESORT = 20.0
"""Seconds to stop in an orderly way, where threads hang that Python would wait for."""

_log = structlog.get_logger(__name__)


class Queue(Protocol):
    """Something that runs requests pass by pass. Any thread."""

    def queue_depth(self) -> int:
        """Requests that wait."""

    def running(self) -> int:
        """Requests that run."""

    def passes(self) -> int:
        """Passes that ended since the start."""


@dataclass(slots=True)
class _Seen:
    passes: int = -1
    seconds: float = 0.0


class StallDetector:
    """Looks at queues again and again; `limit` is in seconds, 0 never finds one that stands still."""

    def __init__(
        self, queues: Mapping[str, Queue], limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queues, self._limit, self._clock = dict(queues), limit, clock
        self._seen = {name: _Seen() for name in queues}
        self._looked = clock()
        self._told = False

    def look(self) -> bool:
        """True where a queue has had work for `limit` seconds and has ended no pass in them."""
        now = self._clock()
        since, self._looked = min(now - self._looked, _UNSEEN), now
        for name, queue in self._queues.items():
            self._note(self._seen[name], queue, since)
        stalled = [name for name, seen in self._seen.items() if 0 < self._limit <= seen.seconds]
        if stalled and not self._told:
            hint = "raise stall_seconds if a pass may take longer on this machine"
            _log.error(
                "no pass ends; the process must go", queues=stalled, stall_seconds=self._limit, hint=hint
            )
        self._told = bool(stalled)
        return self._told

    @staticmethod
    def _note(seen: _Seen, queue: Queue, since: float) -> None:
        passes = queue.passes()
        idle = queue.queue_depth() + queue.running() == 0
        seen.seconds = 0.0 if idle or passes != seen.passes else seen.seconds + since
        seen.passes = passes


def force_exit(code: int, seconds: float = _LAST_RESORT) -> None:
    """Give the process some seconds to end by itself; after them it ends with this code, whatever hangs."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
