"""Assign features to the slots of the tap, and count who needs each feature.

Policy sets hold the features that their rules read or that they may clamp; these slots are computed in every pass.
Requests hold the features that they clamp; further slots are computed only in passes that clamp. A slot keeps its
feature as long as anybody holds it.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from monitor.errors import ConfigurationError, Overloaded

Fill = Callable[[int, int], None]
"""Loads a feature into a slot: (slot, feature). Where it raises, the slot stays free."""


class Slots:
    """The assignment of features to slots. Thread-safe.

    There are slots for the first policy set, `reserve` more for later ones, and `spare` that only requests may use.
    """

    def __init__(self, first: Sequence[int], fill: Fill, *, spare: int, reserve: int) -> None:
        self.width = len(first) + reserve + spare
        self._fill = fill
        self._spare = spare
        self._of: dict[int, int] = {}
        self._free = list(range(self.width))
        self._by_policies: Counter[int] = Counter()
        self._by_requests: Counter[int] = Counter()
        self._lock = threading.RLock()
        self.read = 0
        """All features that policy sets hold are in slots below this one."""
        self.used = 0
        """All features that anybody holds are in slots below this one."""
        self.acquire_for_policies(first)

    def slot(self, feature: int) -> int:
        """Slot of a feature that is held. Raises KeyError for any other."""
        return self._of[feature]

    def acquire_for_policies(self, features: Sequence[int]) -> None:
        """Hold features for a policy set. Raises ConfigurationError, and holds none, where too few slots are free."""
        with self._lock:
            self.unheld(features)
            self._hold(features, self._by_policies)

    def unheld(self, features: Sequence[int]) -> list[int]:
        """Those of the features that nobody holds yet. Raises ConfigurationError where `acquire_for_policies` would."""
        with self._lock:
            new = {f for f in features if f not in self._by_policies}
            room = self.width - self._spare - len(self._by_policies)
            if len(new) > room:
                raise ConfigurationError(
                    f"the new policies name {len(new)} features that are not watched yet, and {max(0, room)} more fit "
                    "into the running server; restart it, or give it more with reload_features"
                )
            return [f for f in new if f not in self._of]

    def acquire_for_request(self, features: Sequence[int]) -> None:
        """Hold features for a request. Raises Overloaded, and holds none, where other requests use the spare slots."""
        with self._lock:
            not_in_policies = {f for f in (*self._by_requests, *features) if f not in self._by_policies}
            if len(not_in_policies) > self._spare:
                raise Overloaded(
                    "too many different features are clamped by requests at once; try again", retry_after=1.0
                )
            self._hold(features, self._by_requests)

    def release_for_policies(self, features: Sequence[int]) -> None:
        """Release features that a policy set holds: the counterpart of `acquire_for_policies`."""
        self._release(features, self._by_policies)

    def release_for_request(self, features: Sequence[int]) -> None:
        """Release features that a request holds: the counterpart of `acquire_for_request`."""
        self._release(features, self._by_requests)

    def _hold(self, features: Sequence[int], holders: Counter[int]) -> None:
        held: list[int] = []
        try:
            for feature in features:
                self._place(feature)
                holders[feature] += 1
                held.append(feature)
            self._measure()
        except BaseException:
            # Whatever it was, such as a file that cannot be read: none of them is held.
            self._release(held, holders)
            raise

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

    def _release(self, features: Sequence[int], holders: Counter[int]) -> None:
        with self._lock:
            for feature in features:
                holders[feature] -= 1
                if holders[feature] == 0:
                    del holders[feature]
                if feature not in self._by_policies and feature not in self._by_requests:
                    heapq.heappush(self._free, self._of.pop(feature))
            self._measure()

    def _measure(self) -> None:
        self.read = max((self._of[f] + 1 for f in self._by_policies), default=0)
        self.used = max((slot + 1 for slot in self._of.values()), default=0)
