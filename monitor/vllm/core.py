"""vLLM's engine core on a thread of this process, as the `Batching` of the engine.

Of vLLM only the core runs: its scheduler, its cache and its model. Requests come from the engine, which draws, scores
and releases their tokens.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from monitor.errors import ConfigurationError, ModelError, MonitorError
from monitor.model.compute_threads import release
from monitor.model.engine.paged import Limits
from monitor.model.load.model import weights_folder
from monitor.model.runtime import LoadedPair
from monitor.telemetry.logs import places
from monitor.vllm.gate import Gate
from monitor.vllm.model import cache_bytes
from monitor.vllm.names import (
    RANKED,
    EngineArgs,
    EngineCore,
    Executor,
    busy,
    core_request,
    finished_requests,
    next_outputs,
    refuse_configuration,
)
from monitor.vllm.operator import Seat
from monitor.vllm.prefixes import TapMemory
from monitor.vllm.scorer import ServedSteps
from monitor.vllm.station import Station, opened

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_USE_V2_MODEL_RUNNER": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",
}
"""Of vLLM; what the operator set stands."""
OVERLAPS = "async_scheduling"
"""The argument of vLLM that has it lay out a pass while the one before it runs."""
_START_SECONDS = 3600.0
"""Longest time in which vLLM may load and compile a model."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CoreOptions:
    """How vLLM is to run a model."""

    folder: Path
    """With the model's configuration and safetensors."""
    dtype: str
    longest: int
    """Most tokens of a sequence, the last of which is never run."""
    batch_tokens: int | None = None
    prefix_caching: bool = True
    cache_bytes: int | None = None
    """Of keys and values; None lets vLLM take what is free."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of vLLM's `EngineArgs`."""

    @property
    def eager(self) -> bool:
        """True where the model is neither compiled nor captured in CUDA graphs."""
        return bool(self.more.get("enforce_eager", False))

    @property
    def overlaps(self) -> bool:
        """True where a pass is laid out while the one before it runs.

        Raises ConfigurationError where the argument is neither true nor false.
        """
        found = self.more.get(OVERLAPS, False)
        if not isinstance(found, bool):
            raise ConfigurationError(f"{OVERLAPS} in vllm_options must be true or false, not {found!r}")
        return found

    @property
    def ranks(self) -> int:
        """Over how many devices each layer is spread."""
        return ranks_in(self.more)


def ranks_in(more: Mapping[str, Any] | None) -> int:
    """The tensor_parallel_size among arguments of vLLM. Raises ConfigurationError where it is no number from 1."""
    found = (more or {}).get("tensor_parallel_size", 1)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ConfigurationError(
            f"tensor_parallel_size in vllm_options must be an integer from 1, not {found!r}"
        )
    return found


def core_options(
    pair: LoadedPair, limits: Limits, cache: Path | None = None, more: Mapping[str, Any] | None = None
) -> CoreOptions:
    """How vLLM is to run the model of a pair, within the limits of a server. Raises NoRoom, a ModelError."""
    loaded = pair.loaded
    return CoreOptions(
        weights_folder(loaded.name, loaded.dtype, cache),
        str(loaded.dtype).removeprefix("torch."),
        loaded.context,
        batch_tokens=limits.batch_tokens,
        cache_bytes=None
        if "kv_cache_memory_bytes" in (more or {})
        else cache_bytes(loaded, limits, ranks_in(more)),
        more=more or {},
    )


def _said(error: BaseException) -> str:
    """What an exception of vLLM says, in one line; of one that checks arguments, what is wrong with them."""
    checked = getattr(error, "errors", None)
    found = (
        [str(one["msg"]) for one in checked()] if callable(checked) else str(error).strip().splitlines()[:1]
    )
    return "; ".join(found)


class CoreBatcher:
    """Owns vLLM's engine core and its thread. `add` and `remove` may be called from any thread."""

    def __init__(self, limits: Limits, steps: ServedSteps, options: CoreOptions, seat: Seat) -> None:
        self._limits, self._steps, self._options, self._seat = limits, steps, options, seat
        self.gate = Gate(steps, TapMemory(seat.tap))
        self._core: Any = None
        self._added: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._started = threading.Event()
        self._stopping = False
        self._failed: BaseException | None = None
        self._over = threading.Lock()
        """Taken for good by whoever ends all requests."""
        self._running = 0
        self._thread = threading.Thread(target=self._loop, name="vllm", daemon=True)

    @property
    def static(self) -> bool:
        """True where passes may be CUDA-graph replays."""
        return self._seat.tap.bank.device.type == "cuda" and not self._options.eager

    def start(self) -> None:
        """Load the model into vLLM, compile it, and begin to run. ModelError where vLLM cannot run it so."""
        self._thread.start()
        if not self._started.wait(_START_SECONDS):
            raise ModelError(f"vLLM did not load the model within {_START_SECONDS:.0f} s")
        if isinstance(self._failed, MonitorError):
            raise self._failed
        if self._failed is not None:
            raise ModelError(
                f"vLLM cannot run this model ({type(self._failed).__name__}: {_said(self._failed)})"
            ) from self._failed

    def stop(self, timeout: float) -> None:
        """End the thread; requests that still run are dropped."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def alive(self) -> bool:
        """True where the thread runs and takes requests."""
        return self._thread.is_alive() and self._failed is None and not self._stopping

    def running(self) -> int:
        """Requests in the last pass."""
        return self._running

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, 0 to 1. Any thread."""
        return 0.0 if self._core is None else float(self._core.scheduler.get_kv_cache_usage())

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """Queue a request, which draws tokens until `remove`. Raises what vLLM refuses it with."""
        name = self.gate.admit(request_id, len(prompt_ids))
        try:
            # Two more than wanted, so that the engine ends it, after its last token was scored.
            shares = self._steps.plain(request_id)
            asked = core_request(name, prompt_ids, max_new_tokens + 2, shares=shares)
            self._added.put(self._core.preprocess_add_request(asked))
        except BaseException:
            self.gate.withdraw(request_id)
            raise
        self._wake.set()

    def remove(self, request_id: str) -> None:
        """Drop a request before the next pass and free its cache. Any thread."""
        self.gate.withdraw(request_id)
        self._wake.set()

    def _loop(self) -> None:
        try:
            self._core = self._made()
        except BaseException as error:  # noqa: BLE001  (raised again where `start` waits)
            self._failed = error
            return
        finally:
            self._started.set()
        try:
            while not self._stopping:
                self._step()
        except BaseException as error:  # noqa: BLE001  (every request must end, and health must say so)
            self._end(error)
        finally:
            with suppress(Exception):
                self._core.shutdown()

    def _rank_failed(self, error: BaseException, stuck: bool) -> None:
        """Another rank has failed. Any thread. Where the thread of passes is stuck, all requests end here."""
        self._failed = self._failed or error
        self._started.set()
        self._wake.set()
        if stuck:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        """End every request, once."""
        self._failed = self._failed or error
        if self._over.acquire(blocking=False):
            what = str(error) if isinstance(error, MonitorError) else type(error).__name__
            _log.error("vLLM failed", error=what, at=places(error.__traceback__))
            self._steps.died(error)

    def _step(self) -> None:
        self._wake.clear()
        if self._failed is not None:
            raise self._failed
        while not self._added.empty():
            self._core.add_request(*self._added.get_nowait())
        scheduler = self._core.scheduler
        if not (scheduler.has_requests() or busy(self._core)):
            self._running = 0
            if not self._wake.wait(0.5):
                release()
            return
        outputs = next_outputs(self._core)
        self._running = len(scheduler.running)
        for name in finished_requests(outputs):
            if (request := self.gate.request_of(name)) is not None:
                self._steps.lost(request)

    def _made(self) -> Any:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        config = self._arguments().create_engine_config()
        refuse_configuration(config)
        scheduler = config.scheduler_config
        if self._options.overlaps and not scheduler.async_scheduling:
            _log.warning("vLLM does not lay out a pass while another runs on this device", setting=OVERLAPS)
        captured = config.compilation_config.cudagraph_capture_sizes or ()
        self._steps.ready(max(scheduler.max_num_batched_tokens, *captured, 1))
        with opened(Station(self._seat, self.gate, static=self.static, failed=self._rank_failed)):
            return EngineCore(config, Executor.get_class(config), log_stats=False)

    def _arguments(self) -> EngineArgs:
        options, limits = self._options, self._limits
        wanted: dict[str, Any] = {
            "model": str(options.folder),
            "skip_tokenizer_init": True,
            "generation_config": "vllm",
            "dtype": options.dtype,
            "max_model_len": options.longest,
            "max_num_seqs": limits.running,
            "enable_prefix_caching": options.prefix_caching,
            "async_scheduling": options.overlaps,
            "trust_remote_code": False,
            "worker_cls": "monitor.vllm.parts.MonitoredWorker",
            "scheduler_cls": "monitor.vllm.parts.GatedScheduler",
        }
        if options.ranks > 1:
            wanted["distributed_executor_backend"] = RANKED
        if options.batch_tokens is not None:
            wanted["max_num_batched_tokens"] = options.batch_tokens
        if options.cache_bytes is not None:
            wanted["kv_cache_memory_bytes"] = options.cache_bytes
        more = {name: value for name, value in options.more.items() if name != OVERLAPS}
        if clash := sorted(wanted.keys() & more.keys()):
            raise ConfigurationError(
                f"vllm_options sets {', '.join(clash)}, which the monitor sets itself; leave it out"
            )
        try:
            return EngineArgs(**wanted, **more)
        except TypeError as error:
            raise ConfigurationError(f"vllm_options holds what vLLM does not take ({error})") from None
