"""Policies read again while the server runs: when asked, at SIGHUP, and when a file of their folder changes.

Knows when to load and what to do with what was loaded. Does not know files' contents. The last good set stays in
force whatever goes wrong.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from monitor.errors import MonitorError
from monitor.model.engine.requests import Lease
from monitor.records import Digests
from monitor.rpc import call_metrics
from monitor.rpc.ports import Judge, PolicySet, Runtime
from monitor.rpc.wire import responses
from monitor.telemetry.decisions.trail import Trail, Trails
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.observer import MeteredObserver
from monitor.v1 import monitor_pb2 as pb

Load = Callable[[], PolicySet]
Signature = tuple[tuple[str, int, int, int], ...]

_LOGGED_LINES = 12
"""Of an error; `policy check` shows all of it."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """What a reload did."""

    changed: bool
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


class Reloader:
    """Puts a new policy set into force; one attempt at a time."""

    def __init__(
        self, load: Load, runtime: Runtime, active: Active, metrics: Metrics, *, readings: bool = False
    ) -> None:
        """`readings`: the decision log keeps them."""
        self._load = load
        self._readings = readings
        self._runtime = runtime
        self._active = active
        self._metrics = metrics
        self._lock = asyncio.Lock()

    async def reload(self) -> Change:
        """Load and swap. Raises what loading raises; the set in force stays then, and the failure is counted."""
        async with self._lock:
            try:
                found = await asyncio.to_thread(self._load)
                change = await self._put_into_force(found)
            except MonitorError as error:
                self._metrics.reload_failed()
                _log.error("policies not reloaded; the last good set stays", error=_shortened(str(error)))
                raise
            _log.info("policies reloaded", digest=found.digest, changed=change.changed)
            return change

    async def try_reload(self) -> None:
        """The same for whoever cannot be told: a failure is in the log and the metrics."""
        try:
            await self.reload()
        except MonitorError:
            return
        except Exception as error:  # noqa: BLE001  (a defect in loading must not end the watching)
            self._metrics.reload_failed()
            _log.error("policies not reloaded; the last good set stays", error=type(error).__name__)

    async def watch(self, folder: Path, seconds: float, loaded: Signature | None = None) -> None:
        """Reload whenever the folder's files differ from what was loaded, once they have stopped changing.

        `loaded`: what they were before the set in force was read; None takes them as they are now.

        Looks at names, sizes, times and inodes of what the links lead to, because a mounted ConfigMap changes by a
        swapped link. Runs until cancelled.
        """
        seen = await asyncio.to_thread(signature, folder)
        loaded = seen if loaded is None else loaded
        while True:
            await asyncio.sleep(seconds)
            now = await asyncio.to_thread(signature, folder)
            if now == seen != loaded:
                loaded = now
                await self.try_reload()
            seen = now

    async def _put_into_force(self, found: PolicySet) -> Change:
        old = self._active.now
        if found.digest == old.policies.digest:
            self._metrics.policies_changed(old.policies)
            return Change(changed=False)
        lease = await _kept(asyncio.ensure_future(asyncio.to_thread(self._make_room, found)))
        digests = replace(old.digests, policies=found.digest)
        try:
            observers = Observers.around(found, self._metrics, self._runtime, readings=self._readings)
            new = InForce(found, digests, observers, lease)
        except BaseException:
            lease.release()
            raise
        self._active.swap(new)
        call_metrics.built(self._metrics, digests)
        before, after = ({p.name for p in s.policies} for s in (old.policies, found))
        return Change(True, tuple(sorted(after - before)), tuple(sorted(before - after)))

    def _make_room(self, found: PolicySet) -> Lease:
        """On a thread: what a set reads may have to come from a dictionary of many gigabytes on a disk."""
        self._runtime.prepare(found.suppression)
        return self._runtime.hold(found.watch, found.clampable)


async def _kept(making: asyncio.Future[Lease]) -> Lease:
    """The lease that a thread makes; whoever asked for the reload may leave meanwhile, and then nobody holds it."""
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_let_go)
        raise


def _let_go(made: asyncio.Future[Lease]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().release()


def _shortened(text: str) -> str:
    """The first lines of an error that may list hundreds of problems."""
    lines = text.splitlines()
    left = len(lines) - _LOGGED_LINES
    return text if left <= 0 else "\n".join([*lines[:_LOGGED_LINES], f"… and {left} lines more"])


def signature(folder: Path) -> Signature:
    """What tells whether files of a folder changed; empty where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return tuple(sorted(_mark(entry) for entry in entries if entry.is_file()))
    except OSError:
        return ()


def _mark(entry: os.DirEntry[str]) -> tuple[str, int, int, int]:
    found = entry.stat()
    return entry.name, found.st_size, found.st_mtime_ns, found.st_ino


@dataclass(frozen=True)
class Observers:
    """What stands around the rules of a policy set: the metrics, and around these what the decision log notes."""

    metered: MeteredObserver
    trails: Trails
    """The outermost, which the engine and the scorer are given."""

    @classmethod
    def around(cls, policies: PolicySet, metrics: Metrics, runtime: Runtime, *, readings: bool) -> Observers:
        """Those of a set that is put into force now. `readings`: the decision log keeps them."""
        metered = MeteredObserver(policies.rules, metrics, metrics.policies_changed(policies))
        return cls(metered, Trails(metered, runtime.special_ids, readings=readings))

    def open(self, judge: Judge) -> Trail:
        """A request begins; called on the task that serves it. Its trail."""
        self.metered.open(judge)
        return self.trails.open(judge)


@dataclass
class InForce:
    """A policy set with everything that answers made under it carry."""

    policies: PolicySet
    digests: Digests
    observers: Observers
    lease: Lease
    """Holds the columns that its rules read and its clamps, until the last request on it has ended."""
    users: int = 0
    said: pb.Digests = field(init=False)
    listed: pb.ListPoliciesResponse = field(init=False)

    def __post_init__(self) -> None:
        """Write down what is said again and again."""
        self.said = responses.digests(self.digests)
        ordered = sorted(self.policies.policies, key=lambda policy: policy.name)
        self.listed = pb.ListPoliciesResponse(
            policies=[responses.policy(policy) for policy in ordered], digests=self.said
        )


class Active:
    """Which set new requests begin on."""

    def __init__(self, first: InForce, retired: Callable[[InForce], None] = lambda _: None) -> None:
        self._now = first
        self._retired = retired

    @property
    def now(self) -> InForce:
        """The set in force at this moment."""
        return self._now

    @contextmanager
    def using(self) -> Iterator[InForce]:
        """The set in force, for a whole request: it stays usable until the request has ended."""
        held = self._now
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            self._let_go(held)

    def swap(self, new: InForce) -> None:
        """New requests begin on another set from now on."""
        old, self._now = self._now, new
        self._let_go(old)

    def _let_go(self, held: InForce) -> None:
        if held is not self._now and held.users == 0:
            held.lease.release()
            self._retired(held)
