"""Whose turn it is to run the model: threads share its time.

Knows threads and seconds. Does not know models, engines or texts. A plain lock goes to whoever happens to be awake,
and one that is handed round gives a pass over thousands of tokens as many turns as a pass over a few: a backlog of
texts to score left generations a tenth of their speed. Here the thread that is least far in its own time goes first
(start-time fair queueing: Goyal, Vin and Cheng, 1996), and nobody saves up time by staying away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

LONGEST_GAP = 0.05
"""Seconds: whoever stays away for longer between two passes is not waited for."""
_KEPT = 16
"""Threads that are remembered; more of them begin anew."""


@dataclass(slots=True, eq=False)
class _Share:
    """What one thread has had of the model."""

    start: float = 0.0
    """Virtual time at which the pass that it wants or runs begins."""
    finish: float = 0.0
    """Virtual time at which its last pass ended: the seconds that it has used, from where it joined."""
    left: float = float("-inf")
    """When that was, on the clock."""
    held: float = 0.0
    """Seconds of a pass, on average."""
    gap: float | None = None
    """Seconds between two passes, on average; None before there were two."""

    @property
    def comes_back(self) -> bool:
        """True for who does little but run the model: it is worth waiting for between two passes."""
        return self.gap is not None and self.gap < self.held


class FairLock:
    """A context manager around every pass. The thread that holds it may take it again.

    The engine reads and judges tokens between two passes. If whoever waits went ahead in each of these moments, passes
    would alternate, however long one of them is; so a thread that is behind, and has just let go, is waited for, twice
    as long as it usually takes. What the model idles meanwhile counts as that thread's.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._shares: dict[int, _Share] = {}
        self._waiting: list[_Share] = []
        self._owner: int | None = None
        self._depth = 0
        self._began = 0.0
        """When the pass that runs began."""
        self._charged = 0.0
        """Seconds that the model idled for the thread that runs it now."""
        self._virtual = 0.0
        self._idle: float | None = None
        """Since when somebody has waited for a thread that is away; None where nobody does."""

    def __enter__(self) -> Self:
        me = threading.get_ident()
        with self._changed:
            if self._owner != me:
                self._take(self._share(me))
                self._owner = me
            self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._depth -= 1
            if self._depth == 0:
                self._let_go(self._shares[threading.get_ident()])

    def _share(self, me: int) -> _Share:
        if me not in self._shares and len(self._shares) >= _KEPT:
            idle = [
                key for key, one in self._shares.items() if key != self._owner and one not in self._waiting
            ]
            for key in sorted(idle, key=lambda key: self._shares[key].left)[: len(idle) // 2]:
                del self._shares[key]
        return self._shares.setdefault(me, _Share())

    def _take(self, mine: _Share) -> None:
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
        # Others idled for this thread: that is its time. Where they did so in vain, it is nobody's.
        self._charged = 0.0 if self._idle is None else max(0.0, arrived - self._idle)
        self._idle = None
        self._virtual = max(self._virtual, mine.start)

    def _patience(self, mine: _Share) -> float | None:
        """Seconds to wait before looking again; 0 to go now, None until something changes."""
        if self._owner is not None or mine is not min(self._waiting, key=lambda one: one.start):
            return None
        now = self._clock()
        until = max((self._back(one) for one in self._shares.values() if self._ahead(one, mine)), default=now)
        if until <= now:
            return 0
        if self._idle is None:
            self._idle = now
        return until - now

    def _ahead(self, other: _Share, mine: _Share) -> bool:
        """True where another thread is away and would go first if it came back."""
        return (
            other not in self._waiting and other.comes_back and max(self._virtual, other.finish) < mine.start
        )

    def _back(self, other: _Share) -> float:
        return other.left + min(2 * (other.gap or 0.0), LONGEST_GAP)

    def _let_go(self, mine: _Share) -> None:
        mine.left = self._clock()
        held = mine.left - self._began
        mine.held = held if mine.gap is None else mine.held + (held - mine.held) / 4
        mine.finish = mine.start + held + self._charged
        self._owner = None
        self._changed.notify_all()
