"""The monitor inside the process of vLLM's engine core: policies, decision log, metrics and ports on a thread.

vLLM's worker makes it (`host_for`), and its scheduler shows it each request and each pass.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import structlog

from monitor.errors import BadRequest, ConfigurationError, MonitorError, MonitoringFailed
from monitor.model.engine.engine import Engine
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Emit, Event, Finished, GenerationRequest
from monitor.model.prompts import Prompt
from monitor.plugin.batcher import HostedBatcher
from monitor.plugin.extras import at, extras_of
from monitor.plugin.refusals import Refusal, refusal_of
from monitor.records import Clamp, FinishReason, Sampling
from monitor.rpc.access.call_interceptor import Call, enter
from monitor.rpc.assembly import assemble, warn_of_unused
from monitor.rpc.server import Addresses, Server
from monitor.rpc.wire.requests import GenerationSpec, Input
from monitor.settings import Settings, load_settings
from monitor.telemetry.logs import configure
from monitor.vllm.core import CoreOptions
from monitor.vllm.operator import Seat
from monitor.vllm.runtime import CoreRuntime
from monitor.vllm.scorer import SharedSteps
from monitor.vllm.station import Station

_UNTIL_THE_END = 1 << 30
"""New tokens that the engine lets a request have: vLLM knows how many were asked for."""
_OF_VLLM = ("vllm_options", "dtype", "max_running", "max_batch_tokens", "max_cache_tokens")
"""Settings in whose place vLLM has arguments of its own."""
_START_SECONDS = 120.0
_PROOF_SECONDS = 600.0
_log = structlog.get_logger(__name__)


class HostedRuntime(CoreRuntime):
    """As `CoreRuntime`; vLLM finds the ends of texts, and requests wait until the check at the start has passed."""

    _finds_ends = False

    def __init__(self, *args: Any, static: bool, **options: Any) -> None:
        """`static`: passes may be CUDA-graph replays."""
        self._static = static
        self.proven = threading.Event()
        super().__init__(*args, **options)

    def start(self) -> None:
        """Begin the check, which runs once vLLM does. Where it fails, vLLM ends."""
        self.engine.start()
        self.scorer.start()
        threading.Thread(target=self._prove, name="reference", daemon=True).start()

    @property
    def hosted(self) -> HostedBatcher:
        """What stands between the engine and vLLM's scheduler."""
        found = self._running_batcher()
        assert isinstance(found, HostedBatcher)
        return found

    def _prove(self) -> None:
        try:
            self.check()
        except Exception as error:  # noqa: BLE001  (whatever it was: nothing may be served)
            _log.error("the check at the start failed", error=str(error))
            self.hosted.fail(str(error))
            return
        self.proven.set()

    def _make_batcher(self, limits: Limits, steps: SharedSteps, seat: Seat) -> HostedBatcher:
        return HostedBatcher(steps, seat, static=self._static)


class Verdicted(NamedTuple):
    """How a request ended: its decision is on disk."""

    reason: FinishReason
    """POLICY where a policy blocked it, ERROR where it could not be monitored or run."""
    why: str | Refusal = ""
    """What its caller may be told."""


class Host:
    """One monitor in one engine core of vLLM."""

    def __init__(self, config: Any) -> None:
        """Load the dictionary and the policies for the model that vLLM was told to run. Raises ConfigurationError."""
        chosen = chosen_settings(config)
        self.settings = hosted_settings(chosen, config)
        if not self.settings.vllm_plugin:
            raise ConfigurationError(
                "vLLM runs under the monitor, and its API server does not know; set vllm_plugin in the settings file "
                "that SAE_MONITOR_SETTINGS names"
            )
        configure(chosen.log_level, chosen.log_format)
        warn_of_unused(chosen, _OF_VLLM, "vLLM runs the model as its own arguments say")
        core = CoreOptions(config.model_config.model, self.settings.dtype, config.model_config.max_model_len)
        static = config.device_config.device_type == "cuda" and not config.model_config.enforce_eager
        parts = assemble(self.settings, make=partial(HostedRuntime, core=core, static=static))
        assert isinstance(parts.runtime, HostedRuntime)
        self.runtime = parts.runtime
        captured = config.compilation_config.cudagraph_capture_sizes or ()
        self.engine: Engine = self.runtime.engine
        # On the thread that captures graphs, so that the buffers are those of the passes.
        self.engine.ready(max(config.scheduler_config.max_num_batched_tokens, *captured, 1))
        self.station = Station(self.runtime.seat, self.runtime.hosted.gate, draws=False)
        self._server = Server(self.settings, *parts)
        self._submit = self.engine.submit
        self.engine.submit = self._noting  # type: ignore[method-assign]
        self._emits: dict[Emit, Emit] = {}
        self._noted = threading.Lock()
        """Held where something of a request is noted that `forget` is to forget."""
        self._running: set[str] = set()
        """Requests of vLLM, from `begin` to `forget`."""
        self._followed: set[Future[None]] = set()
        self._finished: dict[str, Finished] = {}
        self._ended: dict[str, Verdicted] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.addresses = Addresses("", "")
        """Where the ports are, once they are open."""

    def serve(self) -> Addresses:
        """Open the ports and begin to take requests, on a thread of its own. Raises ConfigurationError."""
        opened: Future[Addresses] = Future()
        threading.Thread(target=lambda: asyncio.run(self._serve(opened)), name="monitor", daemon=True).start()
        self.addresses = opened.result(_START_SECONDS)
        return self.addresses

    def begin(self, name: str, ids: tuple[int, ...], extra: Mapping[str, Any] | None) -> None:
        """Start the rules of a request of vLLM, and let it run. Any thread. `ended` says how it went."""
        assert self._loop is not None
        self._running.add(name)
        self.runtime.hosted.expect(name)
        followed = asyncio.run_coroutine_threadsafe(self._follow(name, ids, extra), self._loop)
        self._followed.add(followed)
        followed.add_done_callback(self._followed.discard)

    def released(self, name: str, prompt: int) -> int:
        """Tokens of the response that were scored and may leave."""
        found = self._finished.get(name)
        return max(0, self.engine.scored(name) - prompt) if found is None else found.tokens_generated

    def ended(self, name: str) -> Verdicted | None:
        """How a request ended; None while it has not, or its decision is not on disk."""
        return self._ended.get(name)

    def forget(self, name: str) -> None:
        """Forget a request whose last output has left."""
        with self._noted:
            self._running.discard(name)
            self._ended.pop(name, None)
            self._finished.pop(name, None)

    async def _serve(self, opened: Future[Addresses]) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            addresses = await self._server.start()
        except BaseException as error:  # noqa: BLE001  (raised again where vLLM's scheduler waits)
            opened.set_exception(error)
            return
        opened.set_result(addresses)
        await self._server.died()
        _log.error("the monitor's engine died; vLLM ends")
        self.runtime.hosted.fail("the monitor's engine died")

    async def _follow(self, name: str, ids: tuple[int, ...], extra: Mapping[str, Any] | None) -> None:
        end = Verdicted(FinishReason.ERROR, Refusal(500, "the request could not be monitored"))
        try:
            enter(Call("VllmGenerate", name, time.perf_counter()))
            proven = self.runtime.proven
            if not (proven.is_set() or await asyncio.to_thread(proven.wait, _PROOF_SECONDS)):
                raise ConfigurationError("vLLM was not found to compute what a plain forward pass does")
            end = await self._run(name, ids, extra)
        except Exception as error:  # noqa: BLE001  (nobody may wait for ever, and nothing may leave)
            end = Verdicted(FinishReason.ERROR, refusal_of(error, name))
            if not isinstance(error, BadRequest | MonitoringFailed):
                said = str(error) if isinstance(error, MonitorError) else type(error).__name__
                _log.error("a request of vLLM was not run", request_id=name, error=said)
        finally:
            with self._noted:
                if name in self._running:
                    self._ended[name] = end
            self.runtime.hosted.remove(name)

    async def _run(self, name: str, ids: tuple[int, ...], extra: Mapping[str, Any] | None) -> Verdicted:
        asked = extras_of(extra, allowed=self.settings.vllm_xargs)
        self._check_clamps(asked.clamps)
        text = self.runtime.loaded.tokenizer.decode(ids)
        given = Input("prompt", text, False, asked.session, asked.labels, asked.policies, at("policies"))
        spec = GenerationSpec("prompt", given, Sampling(max_new_tokens=_UNTIL_THE_END), asked.clamps, False)
        async with self._server.runs.generation(spec, Prompt(ids)) as run:
            while await run.released() is not None:
                pass
        why = run.ending.refusal or "a policy ended this response"
        return Verdicted(run.ending.reason, why if run.ending.reason is FinishReason.POLICY else "")

    def _check_clamps(self, clamps: Sequence[Clamp]) -> None:
        """Raise BadRequest, with the names that the caller knows, for clamps that cannot be applied."""
        try:
            self.runtime.check_clamps(clamps)
        except BadRequest as error:
            raise BadRequest(*(replace(v, field=at(v.field)) for v in error.violations)) from None

    def _noting(self, request: GenerationRequest, emit: Emit) -> None:
        """As the engine's `submit`; ends are noted on its thread, for the scheduler."""
        noting = self._emits.get(emit)
        if noting is None:

            def noting(events: Any, emit: Emit = emit) -> None:
                for name, event in events:
                    self._note(name, event)
                emit(events)

            self._emits[emit] = noting
        self._submit(request, noting)

    def _note(self, name: str, event: Event) -> None:
        if isinstance(event, Finished):
            with self._noted:
                if name in self._running:
                    self._finished[name] = event


_host: list[Host] = []


def host_for(config: Any) -> Host:
    """The monitor of this process; made for the configuration of vLLM where there is none."""
    if not _host:
        _host.append(Host(config))
    return _host[0]


def chosen_settings(config: Any) -> Settings:
    """The operator's settings, with the model that vLLM was told to run."""
    return load_settings({"engine": "vllm", "model": str(config.model_config.model)})


def hosted_settings(chosen: Settings, config: Any) -> Settings:
    """The operator's settings as they hold for the model that vLLM was told to run; vLLM's own arguments win."""
    model = config.model_config
    longest = model.max_model_len
    changes = {
        "dtype": str(model.dtype).removeprefix("torch."),
        "context_limit": min(chosen.context_limit or longest, longest),
        "max_running": config.scheduler_config.max_num_seqs,
    }
    return chosen.model_copy(update=changes)
