"""Every name of vLLM that this project relies on beyond its command line.

The contract tests in `tests/vllm/test_names.py` fail on an upgrade that changes what stands here. No other module of
the project imports vllm.
"""

from __future__ import annotations

import functools
import glob
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from types import FrameType
from typing import Any

import cloudpickle
import torch
from torch import Tensor
from vllm import SamplingParams, envs
from vllm.distributed import destroy_distributed_environment, destroy_model_parallel
from vllm.distributed.parallel_state import get_tp_group
from vllm.engine.arg_utils import EngineArgs
from vllm.exceptions import GracefulHTTPError, VLLMValidationError
from vllm.platforms import current_platform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import (
    EngineCoreOutput,
    EngineCoreOutputs,
    EngineCoreRequest,
    EngineCoreRequestType,
    FinishReason,
)
from vllm.v1.engine.core import EngineCore
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.output_processor import RequestOutputCollector
from vllm.v1.executor import Executor
from vllm.v1.executor.uniproc_executor import UniProcExecutor
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.outputs import SamplerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.serial_utils import run_method
from vllm.v1.worker.worker_base import WorkerWrapperBase
from vllm.version import __version__ as VERSION  # noqa: N812

from monitor.errors import ConfigurationError
from monitor.vllm.gate import PassPart

if current_platform.is_cpu():
    from vllm.v1.worker.cpu_worker import CPUWorker as PlatformWorker
else:
    from vllm.v1.worker.gpu_worker import Worker as PlatformWorker

__all__ = [
    "VERSION",
    "AsyncScheduler",
    "CachedBlocks",
    "EngineArgs",
    "EngineCore",
    "EngineCoreOutput",
    "EngineCoreOutputs",
    "EngineDeadError",
    "Executor",
    "FinishReason",
    "InputProcessor",
    "PlatformWorker",
    "RequestOutputCollector",
    "RequestStatus",
    "SamplingParams",
    "Scheduler",
    "UniProcExecutor",
    "run_method",
]

RANKED = "monitor.vllm.executor.RankedExecutor"
"""The executor with which the monitor runs several ranks, as vLLM's `distributed_executor_backend`."""

TESTED = ("0.32.", "0.33.")
"""Versions of vLLM, by how they begin, that the contract tests and the others were run with.

Of 0.33 there is no build for CPUs: its Python code was run on the CPU kernels of 0.32.
"""


def check_version(version: str = VERSION) -> None:
    """Raise ConfigurationError for a version of vLLM that the monitor was not tested with."""
    if not version.startswith(TESTED):
        raise ConfigurationError(
            f"the monitor was tested inside vLLM {', '.join(f'{v}*' for v in TESTED)} and finds {version}; install "
            "a version that was tested"
        )


def check_device(device: torch.device) -> None:
    """Raise ConfigurationError for another kind of device than vLLM runs models on here."""
    here = current_platform.device_type
    if device.type != here:
        raise ConfigurationError(
            f"the setting device chose {device.type}, and this vLLM runs models on {here}; write `device: {here}`"
        )


def parts_of_pass(runner: Any, scheduled: Mapping[str, int]) -> list[PassPart]:
    """Whose rows a pass has, in order, once the runner has laid it out."""
    batch = runner.input_batch
    computed = batch.num_computed_tokens_cpu
    return [PassPart(name, int(scheduled[name]), int(computed[i])) for i, name in enumerate(batch.req_ids)]


def token_ids_of_pass(runner: Any, rows: int) -> list[int]:
    """Token ids of the first rows of a pass, once the runner has laid it out."""
    ids: list[int] = runner.input_ids.cpu[:rows].tolist()
    return ids


def ids_that_run(runner: Any) -> Tensor:
    """Token ids `[most rows]` of the pass that the runner has queued on its device, from the first row on.

    With async scheduling the host does not know those that the pass before draws.
    """
    ids: Tensor = runner.input_ids.gpu
    return ids


def run_again(scheduler: Any, name: str) -> None:
    """Let a running request begin anew, with what its cached blocks hold. Passes on their way draw nothing for it.

    For others than those that run there is nothing to do.
    """
    request = scheduler.requests.get(name)
    if request is None or request.status != RequestStatus.RUNNING:
        return
    scheduler.running.remove(request)
    scheduler._preempt_request(request, time.monotonic(), drop_stale_output=True)
    # As `reset_prefix_cache` has it: it may be in the very next pass, whose worker must not take it for the same.
    scheduler.prev_step_scheduled_req_ids.discard(name)


def watch_passes(runner: Any, before: Callable[[], None]) -> None:
    """Have `before` called before each forward pass over scheduled tokens, once it is laid out."""
    forward = runner._model_forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        before()
        return forward(*args, **kwargs)

    runner._model_forward = watched


class DrawingSampler:
    """Stands in for vLLM's sampler: tokens are drawn by `draw`, or as vLLM does where that gives None."""

    def __init__(self, runner: Any, draw: Callable[[Tensor], Tensor | None]) -> None:
        self._sampler, self._draw = runner.sampler, draw
        runner.sampler = self

    def __call__(self, logits: Tensor, sampling_metadata: Any, **options: Any) -> Any:
        """The next token `[requests, 1]` of each request of the pass from logits `[requests, vocabulary]`."""
        chosen = self._draw(logits)
        if chosen is None:
            return self._sampler(logits=logits, sampling_metadata=sampling_metadata, **options)
        return SamplerOutput(sampled_token_ids=chosen.to(torch.int32).unsqueeze(-1), logprobs_tensors=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sampler, name)


def core_of(caller: FrameType | None) -> Any:
    """The engine core that makes a scheduler, by the frame that calls the scheduler's constructor; None for others."""
    found = None if caller is None else caller.f_locals.get("self")
    return found if isinstance(found, EngineCore) else None


def wake(core: Any) -> None:
    """Have a core that waits for requests look at its scheduler. Any thread. A core that is called needs none."""
    waiting = getattr(core, "input_queue", None)
    if waiting is not None:
        waiting.put_nowait((EngineCoreRequestType.WAKEUP, None))


def make_request(
    name: str, ids: Sequence[int], most: int, *, shares: bool, hasher: Callable[[Any], Any] | None = None
) -> Any:
    """A request of the monitor's own for the scheduler; see `core_request`."""
    return Request.from_engine_core_request(core_request(name, ids, most, shares=shares), hasher)


def bare_core(options: Any, running: int, *, synchronous: bool = False, overlapping: bool = False) -> Any:
    """A core of vLLM without anything of the monitor, for comparison; `options` are a `CoreOptions`.

    A synchronous one runs as under the monitor: its worker is in this process, by the first model runner, and a pass
    is laid out once the one before is over. By itself vLLM does the first on GPUs alone, the others on CPUs alone. An
    overlapping one schedules a pass while the one before runs (async scheduling), on a CPU too, where its worker has
    its own process.
    """
    wanted: dict[str, Any] = {
        "model": str(options.folder),
        "dtype": options.dtype,
        "max_model_len": options.longest,
        "max_num_batched_tokens": options.batch_tokens,
        "kv_cache_memory_bytes": options.cache_bytes,
        "enable_prefix_caching": options.prefix_caching,
    }
    if synchronous:
        # Else vLLM gives a worker on a CPU a process of its own.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        # Else vLLM takes its second model runner on a GPU.
        os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
        wanted |= {"distributed_executor_backend": "uni", "async_scheduling": False}
    with async_scheduling() if overlapping and current_platform.is_cpu() else nullcontext():
        config = EngineArgs(
            **{name: value for name, value in wanted.items() if value is not None},
            skip_tokenizer_init=True,
            generation_config="vllm",
            max_num_seqs=running,
            **options.more,
        ).create_engine_config()
    return EngineCore(config, Executor.get_class(config), log_stats=False)


@contextmanager
def async_scheduling() -> Iterator[None]:
    """Have configurations that are made meanwhile schedule asynchronously, which vLLM's platform for CPUs forbids."""
    platform = type(current_platform)
    own, real = vars(platform)["check_and_update_config"], platform.check_and_update_config

    def checked(config: Any) -> None:
        real(config)
        config.scheduler_config.async_scheduling = True

    platform.check_and_update_config = staticmethod(checked)
    try:
        yield
    finally:
        platform.check_and_update_config = own


def next_outputs(core: Any) -> Mapping[int, Any]:
    """Run a pass as vLLM's own loop does, and give what left it: nothing where the pass before is still awaited."""
    return core.step_fn()[0] or {}


def busy(core: Any) -> bool:
    """True while requests of a core run or wait, or a pass is awaited."""
    return bool(core.scheduler.has_unfinished_requests() or core.batch_queue)


class ModelClock:
    """Where the time of a synchronous core in this process goes: in its model, or beside it.

    In the model are forward passes, logits and the choice of tokens. Beside it the host lays passes out, has them
    scored, and takes in what was drawn. On a CPU alone: calls of a GPU's model return before it has computed.
    """

    def __init__(self, core: Any) -> None:
        self.passes, self._steps, self._model = 0, 0.0, 0.0
        runner = core.model_executor.driver_worker.model_runner
        model = runner.get_model()
        for owner, name in ((model, "forward"), (model, "compute_logits"), (runner, "_sample")):
            self._time(owner, name)
        self._time(core, "step")
        core.step_fn = core.step

    @property
    def beside(self) -> float:
        """Seconds beside the model, of all passes."""
        return self._steps - self._model

    def restart(self) -> None:
        """Count from 0."""
        self.passes, self._steps, self._model = 0, 0.0, 0.0

    def _time(self, owner: Any, name: str) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return real(*args, **kwargs)
            finally:
                took = time.perf_counter() - began
                if name == "step":
                    self._steps += took
                else:
                    self._model += took
                    self.passes += name == "forward"

        setattr(owner, name, timed)


def clock_of(core: Any) -> ModelClock | None:
    """The clock of a core on a CPU; None for others."""
    return ModelClock(core) if current_platform.is_cpu() else None


def core_request(name: str, ids: Sequence[int], most: int, *, shares: bool, temperature: float = 0.0) -> Any:
    """A request that draws `most` tokens. One that does not share runs all of its tokens, and no other takes them."""
    sampling = SamplingParams(max_tokens=most, temperature=temperature, ignore_eos=True, detokenize=False)
    sampling.skip_reading_prefix_cache = not shares
    return EngineCoreRequest(
        request_id=name,
        prompt_token_ids=list(ids),
        mm_features=None,
        sampling_params=sampling,
        pooling_params=None,
        arrival_time=time.time(),
        lora_request=None,
        cache_salt=None if shares else os.urandom(16).hex(),
        data_parallel_rank=None,
    )


def end_ids(config: Any) -> frozenset[int]:
    """Ids of the tokens with which the model ends a text, as its configuration has them."""
    model = config.model_config
    own = getattr(model.hf_text_config, "eos_token_id", None)
    found = (model.try_get_generation_config().get("eos_token_id"), own)
    return frozenset(
        one for ids in found for one in (ids if isinstance(ids, list) else [ids]) if one is not None
    )


def why_refused(request: Any, ends: frozenset[int] | None = None) -> str:
    """Why a request of vLLM cannot be monitored, as a phrase that says what to leave out; empty where it can.

    `ends` are the ids of special tokens, and of those that end a text; None where nobody knows them.
    """
    asked = request.sampling_params
    if asked is None:
        return "only generations are monitored; pooling is not"
    refused = {
        "logprobs, which beam search needs too: they name tokens that were not scored": (
            asked.logprobs is not None or asked.logprob_token_ids is not None
        ),
        "prompt_logprobs: they name tokens that were not scored": (
            asked.prompt_logprobs is not None or asked.prompt_logprob_token_ids is not None
        ),
        "a LoRA adapter: policies were fitted to the model without it": request.lora_request is not None,
        "images, sound and other inputs that are not text": bool(request.mm_features),
        "prompt_embeds: only tokens are scored": getattr(request, "prompt_embeds", None) is not None,
        "inputs that are streamed": bool(getattr(request, "resumable", False)),
        "kv_transfer_params": bool((asked.extra_args or {}).get("kv_transfer_params")),
        "stop_token_ids of ordinary tokens, which would be told and not scored; write their texts in `stop`": (
            ends is not None and not ends.issuperset(asked.stop_token_ids or ())
        ),
    }
    return "; ".join(what for what, here in refused.items() if here)


def http_error(status: int, why: str) -> Exception:
    """What to raise, or to hand to the caller of a request, for its API server to answer with this status and text.

    An exception of another kind becomes an error 500 that says nothing.
    """
    made: Exception = (
        VLLMValidationError(why) if status == 400 else GracefulHTTPError(why, HTTPStatus(status))
    )
    return made


def watch_errors(read: Callable[[object], tuple[int, str] | None]) -> None:
    """Have the API server answer a request that ended with an error as its stop reason says.

    `read` makes status and text of a stop reason; None leaves vLLM's own error 500.
    """
    put = RequestOutputCollector.put

    @functools.wraps(put)
    def told(self: Any, output: Any) -> None:
        outputs = getattr(output, "outputs", None)
        ended = [one for one in outputs if _failed(one)] if isinstance(outputs, list) else []
        found = next((told for one in ended if (told := read(one.stop_reason))), None)
        put(self, output if found is None else http_error(*found))

    RequestOutputCollector.put = told


def _failed(completion: Any) -> bool:
    return getattr(completion, "finish_reason", None) == str(FinishReason.ERROR)


def refuse_health(why: Callable[[Any], str]) -> None:
    """Have `/health` of the API server answer 503 where `why` gives a reason for its configuration."""
    from vllm.v1.engine.async_llm import AsyncLLM

    real = AsyncLLM.check_health

    @functools.wraps(real)
    async def checked(self: Any) -> None:
        if why(self.vllm_config):
            raise EngineDeadError
        await real(self)

    AsyncLLM.check_health = checked


def drawn_tokens(output: Any) -> dict[str, Sequence[int]]:
    """The tokens that each request of a pass drew, by vLLM's id; empty where its prompt has not run to the end."""
    sampled = output.sampled_token_ids
    return {name: sampled[index] if sampled else () for name, index in output.req_id_to_index.items()}


def finished_requests(outputs: Mapping[int, Any]) -> list[str]:
    """Requests that vLLM ended in a step of its core, by its ids."""
    return [
        output.request_id
        for of_client in outputs.values()
        for output in of_client.outputs
        if output.finish_reason is not None
    ]


def refuse_configuration(config: Any) -> None:
    """Raise ConfigurationError where vLLM is set up in a way in which not every token would be scored."""
    parallel, scheduler = config.parallel_config, config.scheduler_config
    executor = parallel.distributed_executor_backend
    ranked = executor == RANKED
    # Else vLLM may have chosen the executor, because of these.
    alone = parallel.pipeline_parallel_size == parallel.data_parallel_size == 1
    refused = {
        "a tensor_parallel_size above 1 in the plug-in (use `sae-monitor serve --engine vllm`)": (
            parallel.tensor_parallel_size > 1 and not ranked
        ),
        "a pipeline_parallel_size above 1": parallel.pipeline_parallel_size > 1,
        "a data_parallel_size above 1": parallel.data_parallel_size > 1,
        "context parallelism": max(
            parallel.prefill_context_parallel_size, parallel.decode_context_parallel_size
        )
        > 1,
        "several machines (nnodes above 1)": parallel.nnodes > 1,
        "a worker in a process of its own, or Ray (leave --distributed-executor-backend out; without a GPU, set "
        "VLLM_ENABLE_V1_MULTIPROCESSING=0)": alone and executor not in (None, "uni") and not ranked,
        "async scheduling over several ranks (leave async_scheduling out)": (
            scheduler.async_scheduling and ranked
        ),
        "speculative decoding": config.speculative_config is not None,
        "LoRA adapters: policies were fitted to the model without them": config.lora_config is not None,
        "transfer of keys and values between servers": config.kv_transfer_config is not None,
        "Model Runner V2 (set VLLM_USE_V2_MODEL_RUNNER=0)": config.use_v2_model_runner,
        "dual batch overlap": bool(getattr(parallel, "use_ubatching", False)),
        "sleep mode, and new weights for a running model: the dictionary belongs to the weights of the start": (
            config.model_config.enable_sleep_mode or config.weight_transfer_config is not None
        ),
        "pooling models": config.model_config.runner_type == "pooling",
        "the fast prefill of shared caches": config.cache_config.kv_sharing_fast_prefill,
    }
    if found := [what for what, here in refused.items() if here]:
        raise ConfigurationError(
            f"the monitor does not support these settings of vLLM yet: {'; '.join(found)}"
        )


def sum_over_ranks(x: Tensor) -> Tensor:
    """The sum of a tensor over the ranks of this process's model, as its own layers take it. May be `x` itself."""
    found: Tensor = get_tp_group().all_reduce(x)
    return found


def pass_seconds() -> float:
    """How long a pass may take with several ranks: VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS."""
    return float(envs.VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS)


def share_cores(ranks: int) -> dict[str, str]:
    """Have this process compute on its share of a machine without a GPU. Settings for those of the other ranks.

    vLLM binds ranks to NUMA nodes; the first rank's process runs already, and so nothing is bound.
    """
    if not current_platform.is_cpu():
        return {}
    threads = max(1, min(torch.get_num_threads(), len(os.sched_getaffinity(0)) // ranks))
    torch.set_num_threads(threads)
    return {"OMP_NUM_THREADS": str(threads)}


def other_worker(config: Any, rank: int, rendezvous: str) -> Any:
    """The worker of a rank that is not the first, with its part of the model loaded. Waits for the other ranks."""
    made = WorkerWrapperBase(rpc_rank=rank, global_rank=rank)
    given: list[dict[str, Any]] = [{} for _ in range(config.parallel_config.world_size)]
    given[rank] = {
        "vllm_config": config,
        "local_rank": rank,
        "rank": rank,
        "distributed_init_method": rendezvous,
        "is_driver_worker": False,
        "shared_worker_lock": threading.Lock(),
    }
    made.init_worker(given)
    made.init_device()
    made.load_model()
    current_platform.update_block_size_for_backend(config)
    return made


def forget_segments(rendezvous: str) -> None:
    """Take the names off the shared memory in which ranks on CPUs sum, once all have it: what is killed leaves none.

    vLLM takes them off only where each rank ends in order.
    """
    name = os.path.basename(rendezvous)
    for left in Path("/dev/shm").glob(f"{glob.escape(name)}-*-cpushm_*"):
        left.unlink(missing_ok=True)


def forget_rendezvous(rendezvous: str) -> None:
    """Remove the file in which ranks found each other."""
    if rendezvous.startswith("file://"):
        Path(rendezvous.removeprefix("file://")).unlink(missing_ok=True)


def leave_ranks() -> None:
    """Forget the groups of ranks that this process was in, such as those of a core that has ended."""
    destroy_model_parallel()
    destroy_distributed_environment()


def portable(method: Any) -> str | bytes:
    """A method of a worker as another process takes it: by name, or pickled."""
    return method if isinstance(method, str | bytes) else cloudpickle.dumps(method)


class CachedBlocks:
    """The prefix cache of one scheduler, whose hits go only as far as `reach` lets them."""

    def __init__(self, scheduler: Any, reach: Callable[[str, Sequence[bytes], int], int]) -> None:
        self._scheduler, self._manager, self._reach = scheduler, scheduler.kv_cache_manager, reach
        self._computed = self._manager.get_computed_blocks
        self._manager.get_computed_blocks = self._found
        groups = scheduler.kv_cache_config.kv_cache_groups
        self._divisible = len(groups) == 1 and type(groups[0].kv_cache_spec) is FullAttentionSpec
        """A part of a hit is a hit: not so where layers attend to the last tokens alone."""
        self.size = int(scheduler.hash_block_size)
        self.most = int(scheduler.kv_cache_config.num_blocks)

    def hashes(self, name: str) -> Sequence[bytes]:
        """What a request's full blocks are known by, in order."""
        request = self._scheduler.requests.get(name)
        return () if request is None else request.block_hashes

    def part(self, name: str, tokens: int) -> None:
        """Share no further block of a request, which has run `tokens`: known by names of its own from now on."""
        request = self._scheduler.requests.get(name)
        if request is None or request._block_hasher is None:
            return
        # Those of a pass that was scheduled and is not over are known by the old names already.
        held = self._manager.get_block_ids(name)
        self._manager.evict_blocks({block for group in held for block in group[tokens // self.size :]})
        hasher, mark = request._block_hasher, os.urandom(16)
        request._block_hasher = lambda of: [hashlib.sha256(mark + block).digest() for block in hasher(of)]
        del request.block_hashes[tokens // self.size :]
        request.update_block_hashes()

    def _found(self, request: Any, *most: Any) -> Any:
        """As `get_computed_blocks`: blocks, how many tokens they hold, and where a shared prefix ends.

        From vLLM 0.33 on it is told how long a hit may be.
        """
        blocks, tokens, boundary = self._computed(request, *most)
        reach = self._reach(request.request_id, request.block_hashes, tokens) if tokens else 0
        if reach >= tokens:
            return blocks, tokens, boundary
        if not (self._divisible and reach):
            return self._manager.empty_kv_cache_blocks, 0, 0
        cut = tuple(list(group[: reach // self.size]) for group in blocks.blocks)
        return self._manager.create_kv_cache_blocks(cut), reach, 0
