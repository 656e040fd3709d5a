"""The ways of running that are compared: bare, watched, watched and clamped, full encode-decode hook.

`bare` and `hook` are transformers' own continuous batching without anything of ours; `hook` adds a forward hook that
encodes with the whole dictionary, edits and decodes, as a straightforward implementation does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from monitor.bench.models import Subject
from monitor.model.engine.engine import Engine, MakeBatching
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Event, Finished, GenerationRequest
from monitor.model.engine.serial import SeparateBatcher
from monitor.model.load.hook_points import hidden_of, replace_hidden
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Clamp, Decision, Sampling, TokenBlock

Prompts = Sequence[Sequence[int]]
Round = Callable[[Prompts, int], float]
"""Generate `new` tokens for every prompt at once; gives seconds."""


class Quiet:
    """An observer without rules: what the engine costs alone."""

    def begin(self) -> Decision:
        """Nothing."""
        return Decision()

    def observe(self, block: TokenBlock) -> Decision:
        """Nothing."""
        return Decision()

    def failed(self, cause: str) -> Decision:
        """A benchmark that does not score is void."""
        raise RuntimeError(f"the tap failed: {cause}")


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
    generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
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
    features: Sequence[int],
    clamps: Sequence[Clamp] = (),
    batcher: MakeBatching | None = None,
) -> Iterator[Round]:
    """Our engine: these features watched, these clamps on every request."""
    loaded = subject.loaded
    bank = FeatureBank(subject.autoencoder, subject.maximum, features, device=loaded.device)
    tap = Tap(bank, loaded.layers[subject.layer])
    engine = Engine(loaded, bank, tap, limits=size, batcher=batcher)
    # No text may end a request early: every variant generates the same number of tokens.
    engine._end_ids = frozenset()
    tap.attach()
    engine.start()

    def run(prompts: Prompts, new: int) -> float:
        waiting = threading.Semaphore(0)

        def emit(event: Event) -> None:
            if isinstance(event, Finished):
                waiting.release()

        began = time.perf_counter()
        for number, ids in enumerate(prompts):
            request = GenerationRequest(
                f"{began}-{number}", tuple(ids), Sampling(max_new_tokens=new), Quiet(), tuple(clamps)
            )
            engine.submit(request, emit)
        for _ in prompts:
            waiting.acquire()
        return time.perf_counter() - began

    try:
        yield run
    finally:
        engine.stop(0)
        tap.detach()


Variant = Callable[[], AbstractContextManager[Round]]


def variants(subject: Subject, size: Limits, count: int = 64) -> dict[str, Variant]:
    """All of them by name, on the same features."""
    alive = torch.nonzero(subject.maximum > 0).flatten()
    chosen = alive[torch.linspace(0, len(alive) - 1, count).long()].tolist()
    clamps = [Clamp(feature, -2.0) for feature in chosen[:12]]
    return {
        "bare": lambda: bare(subject, size),
        "watched": lambda: watched(subject, size, chosen),
        "clamped": lambda: watched(subject, size, chosen, clamps),
        "in turns": lambda: watched(subject, size, chosen, batcher=SeparateBatcher),
        "full hook": lambda: full_hook(subject, size),
    }
