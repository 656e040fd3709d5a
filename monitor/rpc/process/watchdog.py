"""Detect an engine that hangs: it has requests, and no forward pass ends. Only a new process helps then.

A device that never answers raises no exception, and the thread that waits for it looks alive. Passes are what progress
is told by: each is bounded, because long prompts and long texts run in chunks, so a limit for one pass is no limit for
a text.
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
"""Most seconds that are counted between two checks. A longer gap means that the whole machine was suspended."""
_LAST_RESORT = 20.0
"""Seconds for an orderly end of the process, before it is ended by force."""

_log = structlog.get_logger(__name__)


class Queue(Protocol):
    """An engine or a scorer, as far as the watchdog needs it. Any thread."""

    def queue_depth(self) -> int:
        """Number of requests that wait."""

    def running(self) -> int:
        """Number of requests that run."""

    def passes(self) -> int:
        """Number of forward passes that have ended since the start, chunks of long texts among them."""


@dataclass(slots=True)
class _Seen:
    """What the last check saw of a queue."""

    passes: int = -1
    seconds: float = 0.0
    """Time for which it has had requests and has ended no pass."""


class StallDetector:
    """Finds queues that stand still. `check` must be called again and again.

    `limit` is the number of seconds after which a queue counts as stalled; 0 never counts one.
    """

    def __init__(
        self, queues: Mapping[str, Queue], limit: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._queues, self._limit, self._clock = dict(queues), limit, clock
        self._seen = {name: _Seen() for name in queues}
        self._checked = clock()
        self._told = False

    def check(self) -> bool:
        """True where a queue has had requests for `limit` seconds and has ended no pass in that time."""
        now = self._clock()
        since, self._checked = min(now - self._checked, _UNSEEN), now
        for name, queue in self._queues.items():
            self._note(self._seen[name], queue, since)
        stalled = [name for name, seen in self._seen.items() if 0 < self._limit <= seen.seconds]
        if stalled and not self._told:
            hint = "raise stall_seconds if a pass may take longer on this machine"
            _log.error(
                "no forward pass ends; the process must be restarted",
                queues=stalled,
                stall_seconds=self._limit,
                hint=hint,
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
    """End the process with this exit code after some seconds, unless it has ended by itself before."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
