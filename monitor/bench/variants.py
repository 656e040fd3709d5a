"""The ways of running that are compared: bare, watched, watched and clamped, full encode-decode hook.

All draw tokens at a temperature. `bare` and `hook` are transformers' own continuous batching without anything of ours;
`hook` adds a forward hook that encodes with the whole dictionary, edits and decodes, as a straightforward
implementation does. `watched` has what users have: eleven policies, metrics and a decision log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from monitor.bench.around import Watch, bank_for, policies_for, watching
from monitor.bench.models import Subject
from monitor.model.engine.engine import Engine, MakeBatching
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Event, Finished, GenerationRequest
from monitor.model.engine.serial import SeparateBatcher
from monitor.model.load.hook_points import hidden_of, replace_hidden
from monitor.model.tap.tap import Tap
from monitor.policy.rules.observer import RequestRules
from monitor.records import Clamp, Sampling
from monitor.rpc.process.garbage import freeze_heap

Prompts = Sequence[Sequence[int]]
Round = Callable[[Prompts, int], float]
"""Generate `new` tokens for every prompt at once; gives seconds."""


TEMPERATURE = 0.7
"""All variants draw their tokens."""


def limits(subject: Subject, running: int, tokens: int) -> Limits:
    """The same sizes for every variant: for `running` sequences of `tokens`, and for one that fills the context."""
    return Limits(
        running=running, batch_tokens=512, cache_tokens=max(running * tokens, subject.loaded.context)
    )


@contextmanager
def bare(subject: Subject, size: Limits) -> Iterator[Round]:
    """Transformers' continuous batching, nothing attached."""
    from transformers import GenerationConfig
    from transformers.generation.configuration_utils import ContinuousBatchingConfig

    small = subject.loaded.device.type == "cpu"
    config = ContinuousBatchingConfig(
        page_size=size.page,
        num_blocks=-(-(size.cache_tokens or 0) // size.page) if small else None,
        max_batch_tokens=size.batch_tokens,
        max_requests_per_batch=size.running,
        allow_block_sharing=False,
        use_async_batching=False,
    )
    generation = GenerationConfig(do_sample=True, temperature=TEMPERATURE, eos_token_id=-1, pad_token_id=0)
    manager: Any = subject.loaded.model.init_continuous_batching(generation, config)
    manager.warmup()
    manager.start()

    def run(prompts: Prompts, new: int) -> float:
        began = time.perf_counter()
        for number, ids in enumerate(prompts):
            manager.add_request(
                list(ids),
                request_id=f"{began}-{number}",
                max_new_tokens=new,
                eos_token_id=[-1],
                streaming=True,
            )
        open_requests = len(prompts)
        while open_requests:
            output = manager.get_result(timeout=60)
            if output is None:
                raise RuntimeError("the engine did not answer")
            open_requests -= output.is_finished()
        return time.perf_counter() - began

    try:
        yield run
    finally:
        manager.stop(block=True, timeout=10, hard_stop=True)


@contextmanager
def full_hook(subject: Subject, size: Limits) -> Iterator[Round]:
    """The bare engine with a hook that encodes and decodes everything and keeps the error term."""
    place = subject.autoencoder.to(subject.loaded.device, torch.float32)

    def hook(_module: object, _args: object, output: Any) -> Any:
        x = hidden_of(output).float()
        activations = place.encode(x)
        error = x - place.decode(activations, x)
        activations[..., 0] = 0
        return replace_hidden(output, (place.decode(activations, x) + error).to(hidden_of(output).dtype))

    handle = subject.loaded.layers[subject.layer].register_forward_hook(hook)
    try:
        with bare(subject, size) as run:
            yield run
    finally:
        handle.remove()


@contextmanager
def watched(
    subject: Subject,
    size: Limits,
    clamps: Sequence[Clamp] = (),
    batcher: MakeBatching | None = None,
    times: list[list[float]] | None = None,
) -> Iterator[Round]:
    """Our engine as users have it: policies, metrics and decision log; these clamps on every request.

    `times` is filled, for each request of the last round, with the seconds after which something of it was released.
    """
    loaded, policies = subject.loaded, policies_for(subject)
    bank = bank_for(subject, policies)
    tap = Tap(bank, loaded.layers[subject.layer])
    engine = Engine(loaded, bank, tap, limits=size, batcher=batcher)
    # No text may end a request early: every variant generates the same number of tokens.
    engine._end_ids = frozenset()
    tap.attach()
    engine.start()
    try:
        with watching(policies) as watch:
            freeze_heap()  # as our server does
            yield lambda prompts, new: _generate(engine, watch, prompts, new, tuple(clamps), times)
    finally:
        engine.stop(0)
        tap.detach()


def _generate(
    engine: Engine,
    watch: Watch,
    prompts: Prompts,
    new: int,
    clamps: tuple[Clamp, ...],
    times: list[list[float]] | None,
) -> float:
    seen: dict[str, list[float]] = {}
    waiting = threading.Semaphore(0)
    judges: dict[str, RequestRules] = {}
    void: list[Event] = []

    def emit(events: Sequence[tuple[str, Event]]) -> None:
        now = time.perf_counter()
        for name, event in events:
            if not isinstance(event, Finished):
                seen.setdefault(name, []).append(now - began)
            else:
                if not event.coverage.complete or event.tokens_generated != new:
                    void.append(event)
                watch.close(name, judges.pop(name), event)
                waiting.release()

    began = time.perf_counter()
    for number, ids in enumerate(prompts):
        name = f"{began}-{number}"
        judges[name], trail = watch.open()
        sampling = Sampling(max_new_tokens=new, temperature=TEMPERATURE)
        engine.submit(
            GenerationRequest(
                name, tuple(ids), sampling, watch.observer, judges[name], clamps, admitted=trail.admitted
            ),
            emit,
        )
    for _ in prompts:
        waiting.acquire()
    taken = time.perf_counter() - began
    if void:
        raise RuntimeError(f"a benchmark that is not scored in full is void: {void[0]}")
    if times is not None:
        times[:] = seen.values()
    return taken


Variant = Callable[[], AbstractContextManager[Round]]


def variants(subject: Subject, size: Limits) -> dict[str, Variant]:
    """All of them by name."""
    alive = torch.nonzero(subject.maximum > 0).flatten()
    chosen = alive[torch.linspace(0, len(alive) - 1, 12).long()].tolist()
    clamps = [Clamp(feature, -2.0) for feature in chosen]
    return {
        "bare": lambda: bare(subject, size),
        "watched": lambda: watched(subject, size),
        "clamped": lambda: watched(subject, size, clamps),
        "in turns": lambda: watched(subject, size, batcher=SeparateBatcher),
        "full hook": lambda: full_hook(subject, size),
    }
