"""The server: which parts it has, how they are connected, and in which order they start and stop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Protocol

import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor import __version__
from monitor.errors import ConfigurationError, EngineDied
from monitor.model.compute_threads import release
from monitor.model.selftest.health import DictionaryHealth
from monitor.records import Digests
from monitor.rpc.access.call_checks import CallChecks
from monitor.rpc.access.call_interceptor import CODES, TimeLimits
from monitor.rpc.access.exposure import announce_exposure, check_exposure, reflects
from monitor.rpc.access.layer import AccessLayer
from monitor.rpc.assembly import assemble, bundled_policies
from monitor.rpc.calls import Calls
from monitor.rpc.decisions.recorder import DecisionRecorder
from monitor.rpc.envoy.processor import Application, ExternalProcessor
from monitor.rpc.health import Health
from monitor.rpc.policies import ActivePolicies, InForce, Load, Observers, Reloader, Signature
from monitor.rpc.ports import LoadedPolicies, ModelRuntime
from monitor.rpc.process.garbage import freeze_heap
from monitor.rpc.process.grpc_server import CoreServer, server_options
from monitor.rpc.process.signals import STOPPING, ExitSignals, exit_at_signals
from monitor.rpc.process.watchdog import StallDetector, force_exit
from monitor.rpc.reflection import add_reflection
from monitor.rpc.runs import Runs, TokenisingPools
from monitor.rpc.score_stream import ScoreStreams, StreamTimes
from monitor.rpc.servicer import MonitorServicer
from monitor.rpc.thread_pool import ThreadPool
from monitor.rpc.watches import Watches
from monitor.rpc.wire.requests import InputLimits
from monitor.settings import Settings, split_address
from monitor.telemetry.logs import configure, guard_libraries, places
from monitor.telemetry.metrics.guard import WaitMetrics
from monitor.telemetry.metrics.http import MetricsServer
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.security import SecurityMetrics
from monitor.telemetry.metrics.server_state import SessionCollector
from monitor.telemetry.tracing.context import Tracing
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["MonitorService"]
_EXTRA_CALLS = 1024
"""Calls beyond `max_concurrent_calls` that gRPC accepts, for health checks and for refusals with a proper status. The
messages of refused calls are not read, so they cost little."""
_LAST_BYTES = 0.5
"""Longest time, in seconds, to send the last bytes of ended calls when the server stops."""

_SCORINGS_PER_GENERATION = 4
"""Number of texts that may wait for the scorer, for each generation that may wait for the engine."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server listens, as HOST:PORT."""

    grpc: str
    metrics: str
    decisions: str = "off"
    """Folder of the decision log, or `off`."""
    http: str = "off"
    """URL of the HTTP API, or `off`."""
    page: str = "off"
    """URL of the page, or `off`."""


class DoorParts(NamedTuple):
    """What another front door needs of a server, so that its calls pass the same checks and run the same way."""

    runtime: ModelRuntime
    runs: Runs
    watches: Watches
    active: ActivePolicies
    checks: CallChecks
    limits: TimeLimits
    traces: Tracing
    metrics: Metrics
    waits: WaitMetrics
    security: SecurityMetrics
    books: DecisionRecorder
    """The log of decisions, and the feed of those that happen."""
    inspecting: ThreadPool
    """For work with all features, one piece after the other."""
    serving: Callable[[], bool]
    """False while calls should go to another server."""
    checks_callers: bool
    """True where callers must authenticate."""
    add_envoy: Callable[[Application], None]
    """Has what goes through Envoy go through an application, at the gRPC port. Called before the door is started."""
    codes: Sequence[str] = CODES
    """Statuses that calls end with, as label values of metrics."""


class Door(Protocol):
    """A front door besides gRPC, on the same event loop."""

    async def start(self) -> str:
        """Open it; its URL. Raises ConfigurationError where that is not possible."""

    async def stop(self, grace: float) -> None:
        """Close it, wait up to `grace` seconds for answers in progress, then end them."""


DoorMaker = Callable[[Settings, DoorParts], Door]


class Server:
    """A gRPC server over one runtime and one policy set. Call `start` and `stop` once each, on the same event loop."""

    def __init__(
        self,
        settings: Settings,
        runtime: ModelRuntime,
        policies: LoadedPolicies,
        health: DictionaryHealth | None = None,
        load: Load | None = None,
        seen: Signature | None = None,
        door: DoorMaker | None = None,
        page: DoorMaker | None = None,
    ) -> None:
        """`door` makes another front door, and `page` one for people, where they are wanted."""
        self._settings, self._seen = settings, seen
        self._makers = {"http": door, "page": page}
        self._doors: list[Door] = []
        self._runtime = runtime
        retry = settings.retry_after_seconds
        digests = Digests(runtime.model_digest, runtime.dictionary_digest, policies.digest)
        engine, scorer = runtime.engine, runtime.scorer

        self._metrics = metrics = Metrics(feature_limit=settings.activation_label_sets)
        metrics.methods([method.name for method in SERVICE.methods], CODES)
        metrics.built(__version__, digests)
        connect_metrics(metrics, settings, runtime, health)
        metrics.registry.register(SessionCollector(policies.sessions))

        self._access = AccessLayer(SERVICE.full_name, settings, metrics)
        self._decisions = DecisionRecorder(settings, metrics)
        self._calls = Calls(runtime, metrics)
        stalls = StallDetector({"generate": engine, "score": scorer}, settings.stall_seconds)
        self._health = Health(
            SERVICE.full_name,
            lambda: engine.healthy() and scorer.healthy() and not stalls.check(),
            self._calls,
            unscored=runtime.unscored_passes,
            can_see=runtime.can_see,
            can_log=self._decisions.ledger.healthy,
        )
        metrics.serving(lambda: self._health.serving)
        self._tokenising = TokenisingPools(
            ThreadPool("tokenise", 2, 64, retry, metrics), ThreadPool("tokenise-long", 1, 64, retry, metrics)
        )
        self._inspecting = ThreadPool("inspect", 1, 16, retry, metrics)
        kept = self._decisions.ledger.contents.readings
        observers = Observers.around(policies, metrics, runtime, readings=kept)
        self._active = ActivePolicies(InForce(policies, digests, observers, runtime.first_lease()))
        self._reloader = Reloader(load or (lambda: policies), runtime, self._active, metrics, readings=kept)
        limits = InputLimits(runtime.context, runtime.longest_token, settings.max_messages)
        self.runs = Runs(
            runtime, self._active, self._calls, metrics, self._decisions, self._tokenising, limits
        )
        self.watches = Watches(runtime, self._active, self._calls, metrics, self.runs)
        self._waits = WaitMetrics(metrics.registry)
        self._waits.serves("score_stream")
        times = StreamTimes(settings.guard_read_seconds, settings.guard_settle_seconds)
        self._servicer = MonitorServicer(
            runtime,
            self._active,
            self._reloader,
            self.runs,
            self._decisions,
            self._inspecting,
            ScoreStreams(self.watches, limits, times, self._waits),
        )

    async def start(self) -> Addresses:
        """Start the engine and open both ports. Raises ConfigurationError where a port cannot be opened."""
        check_exposure(self._settings)
        announce_exposure(self._settings)
        guard_libraries()
        host, port = split_address(self._settings.metrics_listen)
        self._http = MetricsServer.start(self._metrics.registry, host, port)
        running = False
        try:
            addresses = Addresses(self._listen(), _address(host, self._http.port), self._decisions.place)
            self._decisions.start()
            self._runtime.start()
            running = True
            # Only now: where the test of batching fails, requests take turns.
            self._metrics.engine(separate=bool(self._runtime.engine.why_separate))
            await self._health.check()
            addresses = replace(addresses, **await self._open_doors())
            await self._grpc.start()
        except BaseException:
            self._http.stop()
            for door in self._doors:
                await door.stop(0)
            if running:  # its threads would keep Python from ending
                await asyncio.to_thread(self._runtime.stop, 0)
            await self._decisions.stop()
            # As long as Python lives: what gRPC does when it lets go of a server fails once modules are gone.
            vars(self).pop("_grpc", None)
            raise
        self._watching = asyncio.create_task(self._health.watch())
        folder, seconds = self._settings.policies or bundled_policies(), self._settings.reload_seconds
        watching = self._reloader.watch(folder, seconds, self._seen) if seconds else None
        self._following = asyncio.create_task(watching) if watching is not None else None
        _log.info("serving", **asdict(addresses))
        return addresses

    async def _open_doors(self) -> dict[str, str]:
        """Open the other front doors, if there are any; their URLs, by the names in `Addresses`."""
        found = {}
        for name, make in self._makers.items():
            if make is not None:
                door = make(self._settings, self._parts())
                found[name] = await door.start()
                self._doors.append(door)
        return found

    def _parts(self) -> DoorParts:
        return DoorParts(
            self._runtime,
            self.runs,
            self.watches,
            self._active,
            self._access.checks,
            self._access.limits,
            self._access.traces,
            self._metrics,
            self._waits,
            self._access.security,
            self._decisions,
            self._inspecting,
            lambda: self._health.serving,
            self._settings.callers is not None,
            lambda application: ExternalProcessor(application, self._access.limits).add_to(self._grpc),
        )

    def _listen(self) -> str:
        """Create the gRPC server, open its port, and return its address."""
        settings = self._settings
        self._grpc = CoreServer(
            interceptors=self._access.interceptors(),
            options=server_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_calls + _EXTRA_CALLS,
        )
        monitor_pb2_grpc.add_MonitorServiceServicer_to_server(self._servicer, self._grpc)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, self._grpc)
        if reflects(settings):
            add_reflection(self._grpc, (pb.DESCRIPTOR, health_pb2.DESCRIPTOR))
        try:
            port = self._access.bind(self._grpc)
        except RuntimeError:
            raise ConfigurationError(f"cannot listen on {settings.listen}; give another address") from None
        return _address(split_address(settings.listen)[0], port)

    async def stop(self, grace: float) -> None:
        """Report NOT_SERVING, refuse new calls, wait up to `grace` seconds for running ones, then stop every part."""
        await self._health.drain()
        self._decisions.close_streams()
        drained = await self._access.admission.drain(grace)
        _log.info("stopping", calls_finished=drained)
        for door in self._doors:
            await door.stop(_LAST_BYTES)
        await self._grpc.stop(_LAST_BYTES if drained else None)
        self._watching.cancel()
        if self._following is not None:
            self._following.cancel()
        await asyncio.to_thread(self._runtime.stop, _LAST_BYTES)
        await self._decisions.stop()
        await asyncio.to_thread(self._access.traces.close, _LAST_BYTES)
        for pool in (*self._tokenising, self._inspecting):
            pool.stop()
        await asyncio.to_thread(self._http.stop)

    async def reload(self) -> None:
        """Load the policy files again. A failure is logged and counted, and the set in force stays."""
        await self._reloader.try_reload()

    async def died(self) -> None:
        """Return once the engine has died."""
        await self._health.dead.wait()

    def hurry(self) -> None:
        """Make a `stop` in progress wait no longer for running calls."""
        self._access.admission.hurry()


def connect_metrics(
    metrics: Metrics, settings: Settings, runtime: ModelRuntime, health: DictionaryHealth | None
) -> None:
    """Connect the queues to metrics that are read at each scrape, and set those of the self-test."""
    engine, scorer, limit = runtime.engine, runtime.scorer, settings.queue_size
    metrics.queue("generate", limit, engine.queue_depth, engine.running)
    metrics.queue("score", _SCORINGS_PER_GENERATION * limit, scorer.queue_depth, scorer.running)
    metrics.passes(engine.passes)
    metrics.cache(engine.cache_used)
    if health is None:
        return
    metrics.health.skipped(health.skipped)
    for check, passed in health.checks:
        metrics.health.self_test(check, passed)
    metrics.dictionary_measured(health.l0, health.explained_variance, health.norm_outliers)
    if health.expected is not None:
        expected = health.expected
        metrics.dictionary_expected(expected.l0, expected.explained_variance, expected.density)


def serve(settings: Settings, ready: Callable[[Addresses], None] | None = None) -> None:
    """Load everything, serve until SIGTERM or SIGINT, then drain. Must run on the main thread of the process.

    A signal while everything is loaded ends the process at once. `ready` is called with the addresses once calls are
    answered. Raises ConfigurationError before that.
    """
    with exit_at_signals():
        configure(settings.log_level, settings.log_format)
        run_in_foreground(Server(settings, *assemble(settings)), settings.grace_seconds, ready)


def run_in_foreground(
    server: Server,
    grace: float,
    ready: Callable[[Addresses], None] | None = None,
    stopped: Callable[[], None] | None = None,
) -> None:
    """Run a constructed server on the main thread; see `serve`.

    The first signal begins the draining, a second ends that at once, and a third ends the process. `stopped` is called
    once everything has stopped except threads, which may hang. Raises EngineDied where the engine died; the process
    must end then, so that its supervisor starts another.
    """

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(_report_failure)
        addresses = await server.start()
        release()
        freeze_heap()
        with _queued_signals() as signals:
            hung_up = asyncio.create_task(_reload_at_hangup(server))
            try:
                if ready is not None:
                    ready(addresses)
            except BaseException:
                await server.stop(0)
                raise
            died = await _first(signals, server)
            hung_up.cancel()
            if died:
                force_exit(EngineDied.exit_code)
            again = asyncio.create_task(_hurry(signals, server, at_once))
            await server.stop(_LAST_BYTES if died else grace)
            again.cancel()
        at_once.arm(EngineDied.exit_code if died else 0)
        if stopped is not None:
            stopped()
        if died:
            raise EngineDied("the engine died; the reason is in the log above")

    with exit_at_signals() as at_once:
        asyncio.run(run())


@contextmanager
def _queued_signals() -> Iterator[asyncio.Queue[int]]:
    """The signals that stop a server, as they come."""
    signals: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in STOPPING:
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        yield signals
    finally:
        for number in (*STOPPING, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _hurry(signals: asyncio.Queue[int], server: Server, at_once: ExitSignals) -> None:
    """Wait for another signal, which ends the draining; one more ends the process."""
    await signals.get()
    server.hurry()
    await signals.get()
    at_once.end()


async def _reload_at_hangup(server: Server) -> None:
    """Reload the policies at every SIGHUP, until cancelled."""
    asked: asyncio.Queue[None] = asyncio.Queue()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.put_nowait, None)
    while True:
        await asked.get()
        await server.reload()


async def _first(signals: asyncio.Queue[int], server: Server) -> bool:
    """Wait for a signal or for the engine to die; True where it died."""
    tasks = [asyncio.create_task(signals.get()), asyncio.create_task(server.died())]
    done, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return tasks[1] in done


def _report_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what no task waited for. The loop's own line would quote the arguments of callbacks, which are callers'."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        _log.error("a task failed", error=type(error).__name__, at=places(error.__traceback__))
    else:
        _log.error("a task failed")


@contextmanager
def in_background(settings: Settings) -> Iterator[Addresses]:
    """Load and run a server on a thread of this process until the context ends. Does not configure logging."""
    with run_in_background(Server(settings, *assemble(settings)), settings.grace_seconds) as addresses:
        yield addresses


@contextmanager
def run_in_background(server: Server, grace: float) -> Iterator[Addresses]:
    """Run a constructed server on a thread of this process until the context ends."""
    started: Future[tuple[Addresses, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(_report_failure)
        asked = asyncio.Event()
        try:
            addresses = await server.start()
        except Exception as error:  # noqa: BLE001  (raised again where the caller waits)
            started.set_exception(error)
            return
        started.set_result((addresses, asyncio.get_running_loop(), asked))
        await asked.wait()
        await server.stop(grace)

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="server", daemon=True)
    thread.start()
    addresses, loop, asked = started.result()
    try:
        yield addresses
    finally:
        loop.call_soon_threadsafe(asked.set)
        thread.join()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
