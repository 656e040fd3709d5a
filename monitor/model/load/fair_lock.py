"""A fair lock around forward passes: threads that run one model share its time.

With a plain lock, or with strict alternation, a backlog of long texts to score left generations a tenth of their speed,
because a scoring pass over thousands of tokens counts as much as a decode pass over a few. This lock counts seconds
instead: the thread that has used the least model time goes first (start-time fair queueing: Goyal, Vin and Cheng,
1996), and a thread that stays away saves up no time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

LONGEST_GAP = 0.05
"""Seconds. The model idles no longer than this for a thread that pauses between two passes, and pauses that are longer
do not enter a thread's average."""
_KEPT = 16
"""Number of threads whose shares are remembered; the ones idle for longest are forgotten beyond it."""


@dataclass(slots=True, eq=False)
class _Share:
    """How much model time one thread has used. Virtual time is measured in seconds of use."""

    start: float = 0.0
    """Virtual time at which its current pass, waiting or running, begins."""
    finish: float = 0.0
    """Virtual time at which its last pass ended: where it joined, plus the seconds that it has used since."""
    left: float = float("-inf")
    """Clock time at which its last pass ended."""
    held: float = 0.0
    """Average duration of its passes, in seconds."""
    gap: float | None = None
    """Average pause between two passes, in seconds; None before there were two."""

    @property
    def comes_back(self) -> bool:
        """True for a thread that pauses for less time than its passes take, so that waiting for it pays off."""
        return self.gap is not None and self.gap < self.held


class FairLock:
    """A re-entrant context manager around every forward pass.

    The engine pauses between two passes to evaluate rules. If a waiting thread could run in each of these pauses,
    passes would alternate, however long they are. So a thread that has used less time and has just released the lock is
    waited for, for up to twice its usual pause. The time that the model idles meanwhile is charged to that thread.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._shares: dict[int, _Share] = {}
        self._waiting: list[_Share] = []
        self._owner: int | None = None
        self._depth = 0
        self._began = 0.0
        """Clock time at which the running pass began."""
        self._charged = 0.0
        """Seconds that the model idled while others waited for the thread that now runs it."""
        self._virtual = 0.0
        self._idle: float | None = None
        """Clock time since which a thread has waited for one that is pausing; None where none waits."""

    def __enter__(self) -> Self:
        me = threading.get_ident()
        with self._changed:
            if self._owner != me:
                self._acquire(self._share(me))
                self._owner = me
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._release(self._shares[threading.get_ident()])

    def _share(self, me: int) -> _Share:
        if me not in self._shares and len(self._shares) >= _KEPT:
            idle = [
                key for key, one in self._shares.items() if key != self._owner and one not in self._waiting
            ]
            for key in sorted(idle, key=lambda key: self._shares[key].left)[: len(idle) // 2]:
                del self._shares[key]
        return self._shares.setdefault(me, _Share())

    def _acquire(self, mine: _Share) -> None:
        arrived = self._clock()
        if (away := arrived - mine.left) < LONGEST_GAP:
            mine.gap = away if mine.gap is None else mine.gap + (away - mine.gap) / 4
        mine.start = max(self._virtual, mine.finish)
        self._waiting.append(mine)
        self._changed.notify_all()
        try:
            while (seconds := self._patience(mine)) != 0:
                self._changed.wait(seconds)
        finally:
            self._waiting.remove(mine)
            self._changed.notify_all()
        self._began = self._clock()
        # The model idled for this thread, so the thread pays for it. Where it did not come back, nobody pays.
        self._charged = 0.0 if self._idle is None else max(0.0, arrived - self._idle)
        self._idle = None
        self._virtual = max(self._virtual, mine.start)

    def _patience(self, mine: _Share) -> float | None:
        """Seconds to wait before checking again; 0 to run now, None to wait until something changes."""
        if self._owner is not None or mine is not min(self._waiting, key=lambda one: one.start):
            return None
        now = self._clock()
        until = max(
            (self._expected_back(one) for one in self._shares.values() if self._ahead(one, mine)), default=now
        )
        if until <= now:
            return 0
        if self._idle is None:
            self._idle = now
        return until - now

    def _ahead(self, other: _Share, mine: _Share) -> bool:
        """True where another thread is pausing and would run before this one if it came back."""
        return (
            other not in self._waiting and other.comes_back and max(self._virtual, other.finish) < mine.start
        )

    def _expected_back(self, other: _Share) -> float:
        """Clock time until which a pausing thread is waited for."""
        return other.left + min(2 * (other.gap or 0.0), LONGEST_GAP)

    def _release(self, mine: _Share) -> None:
        mine.left = self._clock()
        held = mine.left - self._began
        mine.held = held if mine.gap is None else mine.held + (held - mine.held) / 4
        mine.finish = mine.start + held + self._charged
        self._owner = None
        self._changed.notify_all()
