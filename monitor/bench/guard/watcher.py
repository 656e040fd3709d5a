"""What the watching model costs beside the server's: `python -m monitor.bench.guard.watcher`.

The server's part is transformers' full forward pass to the logits, with a key-value cache. The watcher's part is what
the guard runs: streams of the scorer to the tapped layer, with the shipped policies. Both read the same prompts of
random token ids and then one token at a time; rounds alternate, and a ratio is taken within a round. Each side computes
in a process of its own, as a server and its guard do, so that it keeps its threads between two runs. Memory is that of
the weights, as bytes of tensors, and what a process of its own has grown by: for the watcher with its dictionary and
all that runs it. The cache is apart.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import psutil
import torch
import typer

from monitor.bench.around import Watch, policies_for, watching
from monitor.bench.models import MAKERS, Subject
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import StreamJob, StreamRead
from monitor.model.load.model import load_model
from monitor.model.runtime import Runtime, load_pair
from monitor.pairs.named_pair import NamedPair
from monitor.pairs.registry import named
from monitor.records import WatchPlan
from monitor.rpc.process.allocator import limit_retained_memory
from monitor.rpc.process.garbage import freeze_heap

app = typer.Typer(add_completion=False)
Prompts = Sequence[Sequence[int]]
_SECONDS = 300.0
_IDLE = 0.6
"""Seconds before each run, in which the threads of both sides wait: requests come at any time."""


@dataclass(frozen=True)
class PassTimes:
    """Seconds of one run."""

    prompt: float
    """Of the prompts of all requests."""
    decode: float
    """Of all tokens behind them."""


FullModel = Callable[[Prompts, int], PassTimes]
"""Runs the whole model over prompts of so many tokens, and what comes behind them."""


@app.command()
def main(
    model: Annotated[str, typer.Option(help="Pair: smollm2 or tiny.")] = "smollm2",
    dtype: Annotated[list[str] | None, typer.Option(help="float32 or bfloat16. Repeatable.")] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Requests at once. Repeatable.")] = None,
    prompt_tokens: Annotated[int, typer.Option(help="Length of each prompt.")] = 128,
    new_tokens: Annotated[int, typer.Option(help="Tokens behind each prompt.")] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds; the first warms up and is not counted.")] = 6,
) -> None:
    """Time and memory of the watching model as shares of the whole one's."""
    limit_retained_memory()  # as a server does, here for both
    for kind in dtype or ["float32", "bfloat16"]:
        full, watching_one = (in_own_process(model, kind, role) for role in ("full", "watcher"))
        for what, mine, whole in zip(("tensors", "resident"), watching_one, full, strict=True):
            share = mine / whole
            typer.echo(
                f"{kind} memory, {what}: {mine / 2**20:.0f} of {whole / 2**20:.0f} MiB, share {share:.3f}"
            )
        subject = MAKERS["demo" if model == "tiny" else model]("cpu", kind)
        assert subject.pair is not None
        with watcher(subject, subject.pair, kind) as (runtime, watch):
            freeze_heap()
            with full_model(model, kind) as full_one:
                for count in batch or [1, 8]:
                    found = measure(full_one, runtime, watch, count, prompt_tokens, new_tokens, rounds)
                    for part in ("prompt", "decode"):
                        typer.echo(f"{kind}, {count} at once, {part}: {_shares(found, part)}")


def measure(
    full: FullModel,
    runtime: Runtime,
    watch: Watch,
    count: int,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
) -> list[tuple[PassTimes, PassTimes]]:
    """PassTimes of the full model and of the watcher, in every counted round."""
    vocabulary = runtime.loaded.rows
    found = []
    for number in range(rounds):
        chance = random.Random(number)
        ids = [
            [chance.randrange(8, vocabulary) for _ in range(prompt_tokens + new_tokens)] for _ in range(count)
        ]
        taken: dict[bool, PassTimes] = {}
        # Whoever runs first changes from round to round.
        for whole in (True, False) if number % 2 else (False, True):
            time.sleep(_IDLE)
            taken[whole] = (
                full(ids, prompt_tokens) if whole else watched_forward(runtime, watch, ids, prompt_tokens)
            )
        if number:
            found.append((taken[True], taken[False]))
    return found


def _shares(found: Sequence[tuple[PassTimes, PassTimes]], part: str) -> str:
    pairs = [(getattr(full, part), getattr(mine, part)) for full, mine in found]
    ratios = sorted(mine / full for full, mine in pairs)
    full, mine = (statistics.median(times) * 1000 for times in zip(*pairs, strict=True))
    return (
        f"{mine:.1f} of {full:.1f} ms, share {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} … {ratios[-1]:.3f})"
    )


_MODEL: list[Any] = []
"""The whole model, in the process that runs it."""


@contextmanager
def full_model(pair: str, dtype: str) -> Iterator[FullModel]:
    """The whole model in a process of its own, which has as many threads as this one."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, _load, (pair, dtype, torch.get_num_threads())) as pool:
        yield lambda ids, prompt_tokens: pool.apply(_full_forward, (ids, prompt_tokens))


def _load(pair: str, dtype: str, threads: int) -> None:
    torch.set_num_threads(threads)
    limit_retained_memory()  # as a server does, here for both
    _MODEL.append(load_model(named(pair).model_path(), device="cpu", dtype=dtype).model)
    freeze_heap()


def _full_forward(ids: Prompts, prompt_tokens: int) -> PassTimes:
    return full_forward(_MODEL[0], ids, prompt_tokens)


@torch.no_grad()
def full_forward(model: Any, ids: Prompts, prompt_tokens: int) -> PassTimes:
    """A server's work without its drawing of tokens: logits of the last position of each pass."""
    from transformers import DynamicCache

    rows, past = torch.tensor(ids), DynamicCache(config=model.config)

    def run(part: torch.Tensor) -> None:
        found = model.base_model(part, past_key_values=past, use_cache=True).last_hidden_state
        # In one piece: of a row within a prompt, torch computes the product with a copy of the whole head in bfloat16,
        # which doubles the time of a prompt. Whoever calls `generate` pays that; a server should not.
        model.get_output_embeddings()(found[:, -1].contiguous())

    began = time.perf_counter()
    run(rows[:, :prompt_tokens])
    prompted = time.perf_counter()
    for at in range(prompt_tokens, rows.shape[1]):
        run(rows[:, at : at + 1])
    return PassTimes(prompted - began, time.perf_counter() - prompted)


def watched_forward(runtime: Runtime, watch: Watch, ids: Prompts, prompt_tokens: int) -> PassTimes:
    """The watcher's work on the same tokens: each is scored before the next one comes."""
    streams = Streams(runtime, watch, len(ids))
    try:
        began = time.perf_counter()
        streams.read([row[:prompt_tokens] for row in ids], response=False)
        prompted = time.perf_counter()
        for at in range(prompt_tokens, len(ids[0])):
            streams.read([row[at : at + 1] for row in ids], response=True)
        return PassTimes(prompted - began, time.perf_counter() - prompted)
    finally:
        streams.end()


class Streams:
    """Some streams that a scorer reads in step."""

    def __init__(self, runtime: Runtime, watch: Watch, count: int) -> None:
        self._scorer = runtime.scorer
        self._names = [f"{id(self)}-{number}" for number in range(count)]
        self._fed = 0
        self._changed = threading.Condition()
        self._scored = dict.fromkeys(self._names, 0)
        self._error: BaseException | None = None
        for name in self._names:
            judge, trail = watch.open()
            job = StreamJob(name, watch.observer, judge, admitted=trail.admitted)
            self._scorer.open_stream(job, self._told)

    def read(self, parts: Prompts, *, response: bool) -> None:
        """Feed each stream what comes next, and wait until all was scored. Raises RuntimeError where it is not."""
        self._fed += len(parts[0])
        for name, part in zip(self._names, parts, strict=True):
            self._scorer.feed(name, part, response=response)
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._error or min(self._scored.values()) >= self._fed, _SECONDS
            )
        if self._error is not None or not done:
            raise RuntimeError(f"a stream was not scored: {self._error or 'it took too long'}")

    def end(self) -> None:
        """Forget them."""
        for name in self._names:
            self._scorer.end_stream(name)

    def _told(self, found: Sequence[tuple[str, StreamRead]]) -> None:
        with self._changed:
            for name, read in found:
                self._scored[name] = read.coverage.tokens_scored
                self._error = self._error or read.error
            self._changed.notify_all()


@contextmanager
def watcher(subject: Subject, pair: NamedPair, dtype: str) -> Iterator[tuple[Runtime, Watch]]:
    """The runtime of a guard, with the shipped policies; it holds weights of its own."""
    policies = policies_for(subject)
    runtime = Runtime(
        load_pair(pair.model_path(), pair.dictionary_path(), device="cpu", dtype=dtype),
        policies.watch,
        policies.clampable,
        limits=Limits(running=0),
        reads_only=True,
        streams=64,
    )
    runtime.start()
    try:
        with watching(policies) as watch:
            yield runtime, watch
    finally:
        runtime.stop(5)


def in_own_process(pair: str, dtype: str, role: str) -> tuple[int, int]:
    """Bytes of a model's weights, and by how much a process grows that holds them: `full` or `watcher`."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found: tuple[int, int] = pool.apply(_held, (pair, dtype, role))
        return found


def _held(name: str, dtype: str, role: str) -> tuple[int, int]:
    pair = named(name)
    load_model(named("tiny").model_path(), device="cpu", dtype=dtype)  # what code takes is no weights
    gc.collect()
    before = psutil.Process().memory_full_info().rss
    if role == "full":
        model = load_model(pair.model_path(), device="cpu", dtype=dtype).model
    else:
        parts = load_pair(pair.model_path(), pair.dictionary_path(), device="cpu", dtype=dtype)
        runtime = Runtime(parts, WatchPlan((0,)), limits=Limits(running=0), reads_only=True, streams=64)
        runtime.start()
        model = runtime.loaded.model
    for weight in model.parameters():
        weight.sum()  # pages of a file that is mapped count once they are read
    gc.collect()
    ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))  # as a server does it, once a minute
    grown = psutil.Process().memory_full_info().rss - before
    return sum({p.data_ptr(): p.nbytes for p in model.parameters()}.values()), grown


if __name__ == "__main__":
    app()
