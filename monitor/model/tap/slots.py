"""Which slot of the tap holds which feature, and for whom.

Knows hosts (policy sets: what they name is read in every pass) and guests (requests: what they clamp is computed in
passes that clamp). Does not know weights. A slot never changes its feature while somebody holds it.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from monitor.errors import ConfigurationError, MonitorError, Overloaded

Fill = Callable[[int, int], None]
"""Puts a feature into a slot: (slot, feature). May raise; the slot stays free then."""


class Slots:
    """`width` slots: `reserve` more than the first host needs, and `spare` that are kept for guests. Thread-safe."""

    def __init__(self, first: Sequence[int], fill: Fill, *, spare: int, reserve: int) -> None:
        self.width = len(first) + reserve + spare
        self._fill = fill
        self._spare = spare
        self._of: dict[int, int] = {}
        self._free = list(range(self.width))
        self._hosts: Counter[int] = Counter()
        self._guests: Counter[int] = Counter()
        self._lock = threading.RLock()
        self.read = self.used = 0
        """How many slots, from the first, hold everything that hosts name; and everything that anybody holds."""
        self.host(first)

    def slot(self, feature: int) -> int:
        """Slot of a feature that somebody holds; KeyError where nobody does."""
        return self._of[feature]

    def host(self, features: Sequence[int]) -> None:
        """Hold features for a policy set, all or none; ConfigurationError where they do not fit beside what is held."""
        with self._lock:
            self.strangers(features)
            self._hold(features, self._hosts)

    def strangers(self, features: Sequence[int]) -> list[int]:
        """Those that nobody holds yet; ConfigurationError where `host` would refuse these features for want of room."""
        with self._lock:
            new = {f for f in features if f not in self._hosts}
            room = self.width - self._spare - len(self._hosts)
            if len(new) > room:
                raise ConfigurationError(
                    f"the new policies name {len(new)} features that are not watched yet, and {max(0, room)} more fit "
                    "into the running server; restart it, or give it more with reload_features"
                )
            return [f for f in new if f not in self._of]

    def invite(self, features: Sequence[int]) -> None:
        """Hold features for a request, all or none; Overloaded where other requests took the spare slots."""
        with self._lock:
            strangers = {f for f in (*self._guests, *features) if f not in self._hosts}
            if len(strangers) > self._spare:
                raise Overloaded(
                    "too many different features are clamped by requests at once; try again", retry_after=1.0
                )
            self._hold(features, self._guests)

    def dismiss(self, features: Sequence[int]) -> None:
        """Undo one `host`."""
        self._let_go(features, self._hosts)

    def leave(self, features: Sequence[int]) -> None:
        """Undo one `invite`."""
        self._let_go(features, self._guests)

    def _hold(self, features: Sequence[int], holders: Counter[int]) -> None:
        held: list[int] = []
        try:
            for feature in features:
                self._place(feature)
                holders[feature] += 1
                held.append(feature)
        except MonitorError:
            self._let_go(held, holders)
            raise
        self._measure()

    def _place(self, feature: int) -> None:
        if feature in self._of:
            return
        if not self._free:
            raise Overloaded("no slot is free for another feature; try again", retry_after=1.0)
        slot = heapq.heappop(self._free)
        try:
            self._fill(slot, feature)
        except BaseException:
            heapq.heappush(self._free, slot)
            raise
        self._of[feature] = slot

    def _let_go(self, features: Sequence[int], holders: Counter[int]) -> None:
        with self._lock:
            for feature in features:
                holders[feature] -= 1
                if holders[feature] == 0:
                    del holders[feature]
                if feature not in self._hosts and feature not in self._guests:
                    heapq.heappush(self._free, self._of.pop(feature))
            self._measure()

    def _measure(self) -> None:
        self.read = max((self._of[f] + 1 for f in self._hosts), default=0)
        self.used = max((slot + 1 for slot in self._of.values()), default=0)
