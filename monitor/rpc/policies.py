"""The policy set in force, and its reload: on request, at SIGHUP, and when a file of its folder changes.

A set that cannot be loaded changes nothing: the last good one stays in force.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from monitor import __version__
from monitor.errors import MonitorError
from monitor.model.compute_threads import released
from monitor.model.engine.requests import Lease
from monitor.policy.files.lock_folders import pair_folders
from monitor.records import Digests
from monitor.rpc.ports import LoadedPolicies, ModelRuntime, RequestJudge
from monitor.rpc.wire import responses
from monitor.telemetry.decisions.trail import Trail, Trails
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.observer import MeteredObserver
from monitor.v1 import monitor_pb2 as pb

Load = Callable[[], LoadedPolicies]
Signature = tuple[tuple[str, int, int, int], ...]
"""Name, size, modification time (ns) and inode of every file that a folder of policies is read from."""

_LOGGED_LINES = 12
"""Lines of an error that are logged; `policy check` shows all of them."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What a reload changed."""

    changed: bool
    """False where the files are the same as before."""
    added: tuple[str, ...] = ()
    """Names of policies that were not in the set before."""
    removed: tuple[str, ...] = ()
    """Names of policies that are in the set no longer."""


class Reloader:
    """Loads policy sets and puts them into force, one attempt at a time."""

    def __init__(
        self,
        load: Load,
        runtime: ModelRuntime,
        active: ActivePolicies,
        metrics: Metrics,
        *,
        readings: bool = False,
    ) -> None:
        """`readings`: the decision log keeps them."""
        self._load = load
        self._readings = readings
        self._runtime = runtime
        self._active = active
        self._metrics = metrics
        self._lock = asyncio.Lock()

    async def reload(self) -> ReloadResult:
        """Load the policy files and put them into force.

        Where loading fails, the set in force stays, the failure is counted, and the error is raised. Where the caller
        is cancelled, the set in force stays too, and the next attempt waits until this one's threads have ended.
        """
        await self._lock.acquire()
        attempt = _Attempt()
        work = asyncio.create_task(self._run(attempt))
        # Not where the caller waits: a thread cannot be interrupted, and would go on beside the next attempt.
        work.add_done_callback(lambda _: self._lock.release())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            attempt.abandoned = True
            raise

    async def _run(self, attempt: _Attempt) -> ReloadResult:
        try:
            found = await asyncio.to_thread(released, self._load)
            change = await self._put_into_force(found, attempt)
        except MonitorError as error:
            self._metrics.reload_failed()
            _log.error("policies not reloaded; the last good set stays", error=_shortened(str(error)))
            raise
        _log.info("policies reloaded", digest=found.digest, changed=change.changed)
        return change

    async def try_reload(self) -> None:
        """Reload where nobody waits for the result: a failure is logged and counted, not raised."""
        try:
            await self.reload()
        except MonitorError:
            return
        except Exception as error:  # noqa: BLE001  (a defect in loading must not end the watching)
            self._metrics.reload_failed()
            _log.error("policies not reloaded; the last good set stays", error=type(error).__name__)

    async def watch(self, folder: Path, seconds: float, loaded: Signature | None = None) -> None:
        """Reload whenever the folder's files differ from those in force and have stopped changing. Runs until
        cancelled.

        The folder is checked every `seconds`. `loaded` is its signature from before the set in force was read; None
        takes the files as they are now. Links are followed, because a mounted ConfigMap changes by swapping a link.
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

    async def _put_into_force(self, found: LoadedPolicies, attempt: _Attempt) -> ReloadResult:
        attempt.check()
        old = self._active.now
        if found.digest == old.policies.digest:
            self._metrics.policies_changed(old.policies)
            return ReloadResult(changed=False)
        lease = await _await_lease(
            asyncio.ensure_future(asyncio.to_thread(released, lambda: self._lease(found)))
        )
        digests = replace(old.digests, policies=found.digest)
        try:
            attempt.check()
            observers = Observers.around(found, self._metrics, self._runtime, readings=self._readings)
            new = InForce(found, digests, observers, lease)
        except BaseException:
            lease.release()
            raise
        self._active.swap(new)
        self._metrics.built(__version__, digests)
        before, after = ({p.name for p in s.policies} for s in (old.policies, found))
        return ReloadResult(True, tuple(sorted(after - before)), tuple(sorted(before - after)))

    def _lease(self, found: LoadedPolicies) -> Lease:
        """Reserve what the set needs of the runtime. Blocks: features may be read from a large dictionary on disk."""
        self._runtime.prepare(found.suppression)
        return self._runtime.lease(found.watch, found.clampable)


@dataclass(slots=True)
class _Attempt:
    """One attempt to load a policy set."""

    abandoned: bool = False
    """Whoever asked for it has left."""

    def check(self) -> None:
        """Raise CancelledError where nobody waits for the result any more."""
        if self.abandoned:
            _log.info("reload abandoned, because its caller left; the set in force stays")
            raise asyncio.CancelledError


async def _await_lease(making: asyncio.Future[Lease]) -> Lease:
    """Wait for a lease that a thread is making. If this is cancelled meanwhile, the lease is released."""
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_release_lease)
        raise


def _release_lease(made: asyncio.Future[Lease]) -> None:
    if not made.cancelled() and made.exception() is None:
        made.result().release()


def _shortened(text: str) -> str:
    """The first lines of an error that may list hundreds of problems."""
    lines = text.splitlines()
    left = len(lines) - _LOGGED_LINES
    return text if left <= 0 else "\n".join([*lines[:_LOGGED_LINES], f"… and {left} lines more"])


def signature(folder: Path) -> Signature:
    """The signature of a folder of policies and of its locks, which changes when their files do.

    Empty where the folder cannot be read.
    """
    return tuple(sorted(mark for place in (folder, *pair_folders(folder)) for mark in _marks(folder, place)))


def _marks(folder: Path, place: Path) -> Iterator[tuple[str, int, int, int]]:
    try:
        with os.scandir(place) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    except OSError:
        return
    for name, stat in found:
        yield str((place / name).relative_to(folder)), stat.st_size, stat.st_mtime_ns, stat.st_ino


@dataclass(frozen=True)
class Observers:
    """What stands around the rules of a policy set: the metrics, and around these what the decision log notes."""

    metered: MeteredObserver
    trails: Trails
    """The outermost, which the engine and the scorer are given."""

    @classmethod
    def around(
        cls, policies: LoadedPolicies, metrics: Metrics, runtime: ModelRuntime, *, readings: bool
    ) -> Observers:
        """Those of a set that is put into force now. `readings`: the decision log keeps them."""
        metered = MeteredObserver(policies.rules, metrics, metrics.policies_changed(policies))
        return cls(metered, Trails(metered, runtime.special_ids, readings=readings))

    def open(self, judge: RequestJudge, *, readings: bool = False) -> Trail:
        """A request begins; called on the task that serves it. Its trail, which keeps its readings where asked."""
        self.metered.open(judge)
        return self.trails.open(judge, readings=readings)


@dataclass
class InForce:
    """A policy set that is in force, or was when a running request began, with what its requests need."""

    policies: LoadedPolicies
    digests: Digests
    observers: Observers
    lease: Lease
    """The tap slots of its features and clamps; released once the last request under it has ended."""
    users: int = 0
    """Number of requests that run under it."""
    said: pb.Digests = field(init=False)
    """The digests as a message."""
    listed: pb.ListPoliciesResponse = field(init=False)
    """The answer to ListPolicies."""

    def __post_init__(self) -> None:
        """Build the messages that do not change."""
        self.said = responses.digests(self.digests)
        ordered = sorted(self.policies.policies, key=lambda policy: policy.name)
        self.listed = pb.ListPoliciesResponse(
            policies=[responses.policy(policy) for policy in ordered], digests=self.said
        )


class ActivePolicies:
    """The policy set in force, and those that running requests still use.

    `retired` is called with a set once it is out of force and its last request has ended.
    """

    def __init__(self, first: InForce, retired: Callable[[InForce], None] = lambda _: None) -> None:
        self._now = first
        self._retired = retired

    @property
    def now(self) -> InForce:
        """The set in force now."""
        return self._now

    @contextmanager
    def using(self) -> Iterator[InForce]:
        """The set in force, for one whole request. A reload meanwhile does not change it."""
        held = self._now
        held.users += 1
        try:
            yield held
        finally:
            held.users -= 1
            self._retire_unused(held)

    def swap(self, new: InForce) -> None:
        """Put another set into force, for requests that begin from now on."""
        old, self._now = self._now, new
        self._retire_unused(old)

    def _retire_unused(self, held: InForce) -> None:
        if held is not self._now and held.users == 0:
            held.lease.release()
            self._retired(held)
