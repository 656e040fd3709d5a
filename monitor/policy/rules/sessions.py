"""Sessions: what rules with `scope: session` carry from request to request of one conversation.

The store is bounded in number and in time. A session that was dropped is remembered as dropped, so that its next
request is not mistaken for a first one. Token ids tell what a conversation has shown before.
"""

from __future__ import annotations

import hashlib
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitor.policy.policy import Check, Policy
from monitor.policy.rules.pooling import PoolBank
from monitor.records import Phase

REMEMBERED = 16
"""Dropped sessions that are remembered, in multiples of those that are kept."""


@dataclass
class _Pool:
    """One check's pool over a session."""

    bank: PoolBank
    count: int = 0


@dataclass
class Session:
    """One conversation. Several requests may push into it; each holds the lock for its step."""

    lost: bool
    """True where an earlier state of it was dropped."""
    used: float
    lock: threading.Lock = field(default_factory=threading.Lock)
    pools: dict[str, _Pool] = field(default_factory=dict)
    """By what the check is, so that checks which a reload did not change go on."""
    seen: array[int] = field(default_factory=lambda: array("i"))
    """Token ids of the conversation as the last request showed it: four bytes each, a context's length at most."""


class SessionStore:
    """Sessions of all callers. Thread-safe."""

    def __init__(
        self, most: int = 10_000, ttl: float = 3600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._ttl, self._clock = most, ttl, clock
        self._live: OrderedDict[bytes, Session] = OrderedDict()
        self._dropped: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self.evicted = {"size": 0, "ttl": 0}
        """Sessions that were dropped since the start, by reason."""
        self.returned = 0
        """Sessions that came back after they had been dropped."""

    def __len__(self) -> int:
        return len(self._live)

    def open(self, caller: str, session: str) -> Session:
        """The session of a caller by its id, a new one where there is none. Ids of callers do not mix."""
        key = hashlib.blake2b(f"{caller}\0{session}".encode(), digest_size=16).digest()
        with self._lock:
            now = self._clock()
            self._expire(now)
            found = self._live.pop(key, None)
            if found is None:
                lost = self._dropped.pop(key, False) is None
                self.returned += lost
                found = Session(lost, now)
            found.used = now
            self._live[key] = found
            while len(self._live) > self._most:
                self._drop("size")
            return found

    def _expire(self, now: float) -> None:
        while self._live and now - next(iter(self._live.values())).used > self._ttl:
            self._drop("ttl")

    def _drop(self, reason: str) -> None:
        key, _ = self._live.popitem(last=False)
        self.evicted[reason] += 1
        self._dropped[key] = None
        while len(self._dropped) > REMEMBERED * self._most:
            self._dropped.popitem(last=False)


class SessionPools:
    """One request's part in a session: which of its tokens are new there, and the pools of its checks."""

    def __init__(self, session: Session, makers: Sequence[Policy], checks: Sequence[Check]) -> None:
        self._session = session
        self._keys = [check_key(policy, check) for policy, check in zip(makers, checks, strict=True)]
        self._checks = tuple(checks)
        self.makers = tuple(makers)
        """The policies whose checks these are."""
        self._before = session.seen[:]
        self._ids = array("i")
        self._fresh = 0
        """Position of the first token that the session has not seen."""
        self._following = True
        self._begun: set[str] = set()
        """Checks that this request is the first to bring: to them the whole conversation is new."""

    @property
    def lost(self) -> bool:
        """True where the session was dropped and came back."""
        return self._session.lost

    def show(self, start: int, token_ids: Sequence[int]) -> None:
        """Tokens of the request from a position on, in order, special ones and all."""
        first = len(self._ids)
        self._ids[start : start + len(token_ids)] = array("i", token_ids)
        for position in range(first, len(self._ids)) if self._following else ():
            self._following = self._before[position : position + 1] == self._ids[position : position + 1]
            if not self._following:
                break
            self._fresh = position + 1
        self._session.seen = self._ids

    def push(
        self, scores: NDArray[np.float64], positions: NDArray[np.int64], phase: Phase
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Token scores `[tokens, checks]` to pooled ones, and the numbers of tokens that each check has counted.

        What the prompt repeats of the session's last request does not count again; its pooled score is minus infinity.
        """
        pooled = np.full(scores.shape, -np.inf)
        counts = np.ones(scores.shape, np.int64)
        unseen = positions >= (self._fresh if phase is Phase.PROMPT else 0)
        with self._session.lock:
            for column, (key, check) in enumerate(zip(self._keys, self._checks, strict=True)):
                if phase not in check.phases:
                    continue
                pool = self._session.pools.get(key)
                if pool is None:
                    pool = self._session.pools[key] = _Pool(PoolBank([check.pooling], [check.hold]))
                    self._begun.add(key)
                fresh = unseen | (key in self._begun)
                if fresh.any():
                    pooled[fresh, column] = pool.bank.push(scores[fresh, column][:, None])[:, 0]
                counts[:, column] = np.maximum(1, pool.count + np.cumsum(fresh))
                pool.count += int(fresh.sum())
        return pooled, counts


def check_key(policy: Policy, check: Check) -> str:
    """What a check is: its pool goes on after a reload where this has not changed."""
    kind = type(check).__name__  # a rule and a condition may have one name
    read = [(f.index, f.weight) for f in check.features]
    settings = (check.probe, check.signal, check.pooling, check.hold, check.phases)
    return repr((policy.name, kind, check.name, read, *settings))
