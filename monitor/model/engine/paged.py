"""The paged batcher: transformers' continuous batching, and every private name of it that this project touches.

It reports which rows of a pass belong to which request, and which token each request drew. Contract tests in
`tests/model/engine/test_paged.py` fail on an upgrade that changes what this module relies on.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
import torch
from torch import Tensor

from monitor.errors import ModelError
from monitor.model.engine.attention import Windows, each_apart
from monitor.model.engine.cache_room import CacheRoom, check_capacity, room_on
from monitor.model.load.model import LoadedModel
from monitor.model.tap.span import Span

TRANSFORMERS = (5, 23)
"""Version of transformers, major and minor, whose private names this module relies on."""
_INSTALL_FLASH = "pip install 'sae-monitor[flash]' --no-build-isolation, and use bfloat16 or float16"
_log = structlog.get_logger(__name__)

_CHUNK, _ACCELERATOR_CHUNK = 512, 8192
"""Most tokens of a pass where the operator sets none, on the CPU and (transformers' own choice) elsewhere."""
_ACCELERATOR_SHARE = 0.8
"""Of an accelerator's free memory, for the cache where it cannot hold all; texts that are scored need room too."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the running batch. None has them chosen for the device and the memory that is free there."""

    running: int = 64
    """Most requests in one pass, or that take turns where a pass runs one; 0 where texts are only scored."""
    batch_tokens: int | None = None
    """Most tokens in one pass; longer prompts are split over passes."""
    cache_tokens: int | None = None
    """Tokens whose keys and values are held."""
    memory: int | None = None
    """Bytes of the host's memory that this process may use."""
    page: int = 32
    """Tokens per cache page."""
    graphs: bool | None = None
    """Capture passes as CUDA graphs; None lets transformers decide by the attention implementation."""


def check_transformers(version: str) -> None:
    """Raise ModelError for another version of transformers than the built-in engine was tested with."""
    major, minor = version.split(".")[:2]
    wanted = ".".join(map(str, TRANSFORMERS))
    if (major, minor) != tuple(map(str, TRANSFORMERS)):
        raise ModelError(
            f"the built-in engine needs transformers {wanted} and finds {version}; `pip install "
            f"'transformers=={wanted}.*'`, or serve with `--engine vllm`, which does not need it"
        )


class Steps(Protocol):
    """Told about every pass, on the engine thread."""

    def ready(self, rows: int) -> None:
        """The cache is allocated; no pass has more rows, padding included. Called once, on the starting thread."""

    def before(self, spans: Sequence[Span], rows: int) -> None:
        """The pass is laid out; `rows` includes padding."""

    def suspect(self) -> bool:
        """True where a request of the pass holds what is no number, so that attention is computed apart at once.

        Asked, as `again` is, before passes in which the attention of one request could reach another's alone.
        """

    def draw(self, logits: Tensor) -> Tensor:
        """Next tokens `[requests]` from logits `[requests, vocabulary]`; drawing requests come first, in order.

        Called a second time where the pass runs again.
        """

    def replays(self) -> bool:
        """True where the pass may replay a captured graph, in which `draw` is not called."""

    def again(self) -> bool:
        """True where the pass that just ran computed what is no number, and so must run once more, apart.

        What it wrote is then ready to be written anew.
        """

    def after(self, spans: Sequence[Span], tokens: Sequence[int | None], ids: Sequence[int]) -> None:
        """The pass is done: the token that each request drew, and the token id that each row of the pass ran."""

    def died(self, error: BaseException) -> None:
        """The engine thread ended; nothing will be reported any more."""


class Batching(Protocol):
    """Runs requests pass by pass on a thread of its own and reports each pass to its `Steps`."""

    @property
    def static(self) -> bool:
        """True where passes may be CUDA-graph replays."""

    def start(self) -> None:
        """Allocate what passes need and start the thread. ModelError where the model cannot be run so."""

    def stop(self, timeout: float) -> None:
        """End the thread; requests that still run are dropped."""

    def alive(self) -> bool:
        """True where the thread runs and takes requests."""

    def running(self) -> int:
        """Requests that are being run."""

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, 0 to 1. Any thread."""

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """Queue a request, which draws tokens until `remove`."""

    def remove(self, request_id: str) -> None:
        """Drop a request before the next pass and free its cache. Any thread."""


class Batcher:
    """Owns the manager of transformers' continuous batching and its thread."""

    def __init__(self, loaded: LoadedModel, limits: Limits, steps: Steps) -> None:
        from transformers import GenerationConfig, __version__
        from transformers.generation.configuration_utils import ContinuousBatchingConfig

        check_transformers(__version__)
        self._steps = steps
        self._context = loaded.context
        self._passes = loaded.passes
        self._removed = threading.Event()
        self._running = 0
        self._processor: Any = None
        self._spans: list[Span] = []
        """Of the pass that was laid out last."""
        self._names: dict[str, str] = {}
        """By request id, what the manager calls a request: a new name each time, though an id may come again."""
        self._numbers = itertools.count()
        self._limits, self._loaded = limits, loaded
        small = loaded.device.type == "cpu"
        config = ContinuousBatchingConfig(
            page_size=limits.page,
            max_batch_tokens=limits.batch_tokens or (_CHUNK if small else None),
            max_requests_per_batch=limits.running,
            max_memory_percent=0.9 if small else _ACCELERATOR_SHARE,
            use_cuda_graph=limits.graphs,
            # Shared prefixes would skip forwards (tokens unscored) and leak clamped keys and values.
            allow_block_sharing=False,
            # A detection must act on the very next step, so the host waits for each.
            use_async_batching=False,
            # Flash attention computes in half precision alone.
            auto_switch_to_flash=loaded.dtype in (torch.float16, torch.bfloat16),
        )
        generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, max_new_tokens=1)
        self._own_attention = loaded.model.config._attn_implementation
        self._manager: Any = loaded.model.init_continuous_batching(generation, config)
        self._manager.output_router = _Discard()
        self._config, self._attention = loaded.model.config, loaded.model.config._attn_implementation
        self._apart = self._attention if self.static else each_apart(self._attention)
        """The same attention, computed for each request by itself; one name where it always is."""
        create = self._manager._create_batch_processor
        self._manager._create_batch_processor = lambda: self._instrument(create())
        record = self._manager.background_thread_status.record_fatal_error
        self._manager.background_thread_status.record_fatal_error = self._reporting(record)

    @property
    def static(self) -> bool:
        """True where passes may be CUDA-graph replays."""
        return any(self._manager.continuous_batching_config.cuda_graph_booleans)

    def start(self) -> None:
        """Allocate the cache, capture graphs where there are any, and start the engine thread. ModelError."""
        self._size_cache()
        if self._loaded.device.type == "cuda" and (slow := why_slow(self._attention)):
            _log.warning("requests are batched slowly", why=slow, do=_INSTALL_FLASH)
        with torch.no_grad():
            self._manager.warmup()
        if self._attention == "paged|eager":
            # It refuses every pass without a paged cache, and those of the scorer have none (Gemma 2, gpt-oss).
            self._config._attn_implementation = "eager"
        self._manager.start()

    def stop(self, timeout: float) -> None:
        """End the engine thread at once; requests that still run are dropped."""
        if self._manager._generation_thread is not None:
            self._manager.stop(block=True, timeout=timeout, hard_stop=True)
        self._loaded.model.set_attn_implementation(self._own_attention)

    def alive(self) -> bool:
        """True where the engine thread runs and takes requests."""
        running: bool = self._manager.is_running()
        return running and self._manager.background_thread_status.fatal_error is None

    def running(self) -> int:
        """Requests in the last pass."""
        return self._running

    def cache_used(self) -> float:
        """Share of the key-value cache that requests hold, 0 to 1. Any thread."""
        if self._processor is None:
            return 0.0
        return 1.0 - float(self._processor.cache.compute_free_capacity())

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None:
        """Queue a request. It draws tokens until `remove`: end-of-text and stop strings are the caller's business."""
        # Two more than wanted, so that transformers never ends a request before its last token was scored.
        name = self._names[request_id] = f"{request_id}{_MARK}{next(self._numbers)}"
        self._manager.add_request(
            list(prompt_ids), request_id=name, max_new_tokens=max_new_tokens + 2, eos_token_id=[-1]
        )

    def remove(self, request_id: str) -> None:
        """Drop a request before the next pass and free its cache. Any thread."""
        # The manager takes in new requests before it drops old ones: one of the same name would be dropped as well.
        if name := self._names.pop(request_id, None):
            self._manager.cancel_request(name)
            self._removed.set()

    def _size_cache(self) -> None:
        """Say how many pages the cache has. On an accelerator that has too few for all, transformers fills it."""
        loaded, limits, config = self._loaded, self._limits, self._manager.continuous_batching_config
        rows = config.max_batch_tokens or _ACCELERATOR_CHUNK
        room = _room(loaded, limits, rows)
        tokens = room.tokens(limits.running, loaded.context, limits.cache_tokens)
        enough = limits.cache_tokens is not None or tokens == limits.running * loaded.context
        if loaded.device.type == "cpu" or enough:
            config.num_blocks = -(-tokens // limits.page)

    def _instrument(self, processor: Any) -> Any:
        prepare, update = processor.prepare_next_batch, processor.update_batch

        def prepare_next_batch() -> bool:
            if self._removed.is_set():
                # After an eviction transformers admits nothing until a request finishes by itself, and ours never do.
                self._removed.clear()
                processor.scheduler.block_new_requests = False
            ready: bool = prepare()
            if ready:
                inputs = processor.inputs_and_outputs
                self._running = len(inputs.requests_in_batch)
                drawn_from = inputs.req_id_to_new_token_position
                drawn_from = {_request_id(name): row for name, row in drawn_from.items()}
                self._spans = _spans(inputs.requests_in_batch, drawn_from)
                self._steps.before(self._spans, inputs.num_q_tokens)
                self._written()
            return ready

        def update_batch() -> None:
            requests, drawn, _ = processor.inputs_and_outputs.prepare_batch_update()
            spans, tokens = self._spans, _tokens(requests, drawn)
            ids = processor.inputs_and_outputs.input_ids[: spans[-1].first + spans[-1].count].tolist()
            update()
            self._steps.after(spans, tokens, ids)

        def sample(scores: Tensor, output_ids: Tensor) -> None:
            tokens = self._steps.draw(scores[0])
            output_ids[0, : tokens.shape[0]].copy_(tokens)

        step = processor._generation_step

        def run(model: Any, attention: str) -> None:
            plain, self._config._attn_implementation = self._config._attn_implementation, attention
            try:
                with nullcontext() if not static or self._steps.replays() else _uncaptured(runner):
                    step(model)
            finally:
                self._config._attn_implementation = plain

        def generation_step(model: Any) -> None:
            steps = self._steps
            with self._passes:
                if self._apart == self._attention or len(self._spans) == 1:
                    run(model, self._attention)
                elif steps.suspect():
                    run(model, self._apart)
                else:
                    windows.keep(processor.inputs_and_outputs, self._spans)
                    run(model, self._attention)
                    if steps.again():
                        self._written()
                        windows.restore()
                        run(model, self._apart)

        if processor is self._processor:
            return processor
        windows, runner, static = Windows(processor.cache), processor.model_runner, self.static
        capacity = processor.cache.num_blocks * self._limits.page
        # One sequence that can never be scheduled ends transformers' loop, and every request with it.
        check_capacity(capacity, self._context)
        self._processor = processor
        processor.prepare_next_batch, processor.update_batch = prepare_next_batch, update_batch
        runner._sample = sample
        processor._generation_step = generation_step
        self._steps.ready(processor.max_batch_tokens)
        return processor

    def _written(self) -> None:
        """Wait until what was laid out is there for the pass, whose stream does not wait for this thread's."""
        if self._loaded.device.type == "cuda":
            torch.cuda.current_stream().synchronize()

    def _reporting(self, record: Callable[[Exception], None]) -> Callable[[Exception], None]:
        def record_fatal_error(error: Exception) -> None:
            record(error)
            self._steps.died(error)

        return record_fatal_error


@contextmanager
def _uncaptured(runner: Any) -> Iterator[None]:
    """Passes that transformers runs step by step, although it has graphs for them or would capture some."""
    graphs = runner.use_cuda_graph_varlen, runner.use_cuda_graph_decode
    runner.use_cuda_graph_varlen = runner.use_cuda_graph_decode = False
    try:
        yield
    finally:
        runner.use_cuda_graph_varlen, runner.use_cuda_graph_decode = graphs


def why_slow(attention: str) -> str:
    """Why batches on an accelerator take longer than they must, as a phrase; empty for flash attention.

    Others compute every request's attention over the keys of all, under a mask, and no pass is a CUDA graph.
    """
    return "" if "flash" in attention else f"their attention is {attention}, not flash attention"


def _room(loaded: LoadedModel, limits: Limits, rows: int) -> CacheRoom:
    """The memory that the paged cache and the passes over it need, `rows` tokens each, as transformers counts it."""
    from transformers.generation.continuous_batching.cache import group_layers_by_attn_type
    from transformers.generation.continuous_batching.utils import find_head_dim, find_num_key_value_heads

    config, item = loaded.model.config.get_text_config(), loaded.dtype.itemsize
    heads, width = find_num_key_value_heads(config), find_head_dim(config)
    held = 2 * heads * width * config.num_hidden_layers
    read = (
        2 * config.num_attention_heads + heads
    ) * width  # a layer's keys and values, repeated for all heads
    masks = (
        len(group_layers_by_attn_type(config)) * rows
    )  # one for each kind of layers, over all of the cache
    logits = 4 * config.vocab_size * max(limits.running, rows)
    needed = item * rows * (read + masks + 4 * config.hidden_size) + logits
    return room_on(loaded.device, item * (held + read + masks), needed=needed, memory=limits.memory)


def _spans(requests: Sequence[Any], drawn_from: Mapping[str, int]) -> list[Span]:
    """The rows of each request, and whether its token is drawn from the last of them."""
    spans: list[Span] = []
    first = 0
    for future in requests:
        count = future.query_length
        position = future.state.position_offset - count
        name, draws = _request_id(future.state.request_id), future.has_new_token
        elsewhere = draws and count > 0 and drawn_from.get(name) != first + count - 1
        spans.append(Span(name, first, count, position, draws, elsewhere))
        first += count
    return spans


_MARK = "#"


def _request_id(name: str) -> str:
    """The request that the manager knows by a name."""
    return name.rpartition(_MARK)[0]


def _tokens(requests: Sequence[Any], drawn: Sequence[int]) -> list[int | None]:
    remaining = iter(drawn)
    return [next(remaining) if future.has_new_token else None for future in requests]


class _Discard:
    """Takes the place of transformers' output router: results reach the caller through `Steps` instead."""

    def deliver(self, output: Any) -> None:
        """Nothing to do."""

    def deliver_batch(self, outputs: list[Any]) -> None:
        """Nothing to do."""

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        """The request never ran; `Steps.died` tells."""
