"""Check that every token is scored: `python -m monitor.bench.coverage`.

Requests of all lengths arrive at random, some with stop strings, some cancelled, while observers block and suppress
at random. The tokens that the model runs are counted independently of the engine's own counts. The exit code
is 1 where a token was not scored, or was released before it was scored.

With `--engine vllm` the model runs in vLLM's core, with chunked prefill, its prefix cache, and prompts of which many
begin alike. What runs is then counted from what vLLM's worker laid out. Tokens that came from the cache do not run;
they are counted apart, because the rules must have seen them too. With `--overlapping`, what a pass ran for a request
while its suppression began or ended, and what runs again therefore, counts once.
"""

from __future__ import annotations

import random
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from monitor.bench.models import MAKERS, Subject
from monitor.bench.random_requests import RandomObserver, TrackedRequest
from monitor.model.engine.engine import Engine, MakeBatching
from monitor.model.engine.paged import Limits
from monitor.model.engine.requests import Event, GenerationRequest, Released
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.tap import Tap
from monitor.records import Clamp, Sampling

WATCHED = 24
_BLOCK = 32
"""Tokens of a block of vLLM's prefix cache."""
PATIENCE = 300.0
"""Number of seconds in which at least one request must end; else the run is taken to hang."""

app = typer.Typer(add_completion=False)


@dataclass
class CoverageCount:
    """The counts of one run."""

    ran: int = 0
    """Number of positions that the model ran for the first time, counted from its forward passes."""
    cached: int = 0
    """Number of positions that were taken from a prefix cache."""
    scored: int = 0
    """Number of tokens that observers were given."""
    generated: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """True where every token was scored and no other check failed."""
        return self.ran + self.cached == self.scored and not self.wrong


class PassCounter:
    """Counts the positions in each forward pass, independently of the engine's own counts."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._after = engine, engine.after
        self._highest: dict[str, int] = {}
        self.rows = self.cached = 0
        engine.after = self._count  # type: ignore[method-assign]

    def _count(self, spans: Sequence[Any], tokens: Sequence[int | None], ids: Sequence[int]) -> None:
        for span in spans:
            if span.request_id in self._engine._sequences:
                self.rows += self._new(span.request_id, span.position, span.count)
        self._after(spans, tokens, ids)

    def _new(self, name: str, position: int, count: int) -> int:
        """How many of these positions were not counted before."""
        end, highest = position + count, self._highest.get(name, 0)
        self._highest[name] = max(end, highest)
        return max(0, end - max(position, highest))


class CorePassCounter(PassCounter):
    """Counts the positions that vLLM's worker lays out, and those that its prefix cache holds already."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._gate = gate = engine._batcher.gate  # type: ignore[attr-defined]
        self._passes: deque[list[tuple[str, int, int]]] = deque()
        """Of each pass that is not over, whose rows it has."""
        self._lay_out, self._passed, self._replay = gate.lay_out, gate.passed, engine.replay
        gate.lay_out, gate.passed = self._count_parts, self._count_pass
        engine.replay = self._count_cached  # type: ignore[method-assign]

    def _count_parts(self, parts: Sequence[Any], ids: Sequence[int]) -> None:
        self._lay_out(parts, ids)
        found = [(self._gate.request_of(part.name), part.position, part.count) for part in parts]
        self._passes.append([one for one in found if one[0] is not None])

    def _count_pass(self, drawn: Any) -> None:
        running = self._engine._sequences
        # What was taken back runs again, and counts then.
        back = {self._gate.request_of(name) for name in self._gate._in_flight[0].back}
        for part in self._passes.popleft():
            if part[0] in running and part[0] not in back:
                self.rows += self._new(*part)
        self._passed(drawn)

    def _count(self, spans: Sequence[Any], tokens: Sequence[int | None], ids: Sequence[int]) -> None:
        self._after(spans, tokens, ids)

    def _count_cached(self, spans: Sequence[Any], taken: Any, ids: Sequence[int]) -> None:
        for span in spans:
            if span.request_id in self._engine._sequences:
                self.cached += self._new(span.request_id, span.position, span.count)
        self._replay(spans, taken, ids)


@contextmanager
def engine_of(
    subject: Subject, running: int, cache: int | None = None, batcher: MakeBatching | None = None
) -> Iterator[tuple[Engine, list[int]]]:
    """An engine that watches features, and the indices of features that may be clamped."""
    alive = subject.maximum.nonzero().flatten().tolist()
    bank = FeatureBank(subject.autoencoder, subject.maximum, alive[:WATCHED], device=subject.loaded.device)
    tap = Tap(bank, subject.loaded.layers[subject.layer])
    limits = Limits(running=running, batch_tokens=256, cache_tokens=cache)
    engine = Engine(subject.loaded, bank, tap, limits=limits, waiting=10**6, batcher=batcher)
    tap.attach()
    engine.start()
    try:
        yield engine, alive[:WATCHED]
    finally:
        engine.stop(0)
        tap.detach()


def cover(
    subject: Subject,
    tokens: int,
    *,
    running: int = 32,
    seed: int = 0,
    cache: int | None = None,
    batcher: MakeBatching | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> CoverageCount:
    """Generate at least `tokens` tokens with random requests and observers; `batcher` is of vLLM."""
    dice, tally, began = random.Random(seed), CoverageCount(), time.perf_counter()
    free = threading.Semaphore(2 * running)
    with engine_of(subject, running, cache, batcher) as (engine, features):
        ran = PassCounter(engine) if batcher is None else CorePassCounter(engine)
        requests = _OpenRequests(engine, tally, free, ran)
        number = 0
        while tally.generated < tokens and not tally.wrong:
            if not free.acquire(timeout=PATIENCE):
                tally.wrong.append(f"no request ended for {PATIENCE:.0f} seconds")
                break
            requests.send(_generation(number, subject, dice, features, shares=batcher is not None), dice)
            number += 1
            if dice.random() < 0.2:
                time.sleep(dice.random() * 0.02)
            progress(tally.generated)
        requests.wait()
        tally.ran, tally.cached = ran.rows, ran.cached
    tally.seconds = time.perf_counter() - began
    return tally


class _OpenRequests:
    """The requests that have not ended."""

    def __init__(
        self, engine: Engine, tally: CoverageCount, free: threading.Semaphore, ran: PassCounter
    ) -> None:
        self._engine, self._tally, self._free, self._ran = engine, tally, free, ran
        self._open = 0
        self._idle = threading.Condition()

    def send(self, one: TrackedRequest, dice: random.Random) -> None:
        """Submit a request. Its events arrive on the engine's thread."""
        sampling = Sampling(
            max_new_tokens=dice.choice((1, 2, 8, 40, 120)),
            temperature=dice.choice((0.0, 1.0)),
            seed=dice.randrange(10**6),
            stop=dice.choice(((), (), ("the",), ("e ", "\n"))),
        )
        clamps = one.observer.clamps[:1] if dice.random() < 0.1 else ()
        request = GenerationRequest(
            one.name, one.prompt, sampling, one.observer, one.observer, clamps, include_tokens=one.told
        )
        with self._idle:
            self._open += 1
        self._engine.submit(request, lambda events: self._take(one, events))
        if one.cancel_after == 0:
            self._engine.cancel(one.name)

    def wait(self) -> None:
        """Wait until all requests have ended."""
        with self._idle:
            if not self._idle.wait_for(lambda: self._open == 0, PATIENCE):
                self._tally.wrong.append(f"{self._open} requests never ended")

    def _take(self, one: TrackedRequest, events: Sequence[tuple[str, Event]]) -> None:
        for _, event in events:
            self._event(one, event)

    def _event(self, one: TrackedRequest, event: Event) -> None:
        if isinstance(event, Released):
            one.check_release(event)
            if one.cancel_after is not None and (
                not one.told or one.released >= len(one.prompt) + one.cancel_after
            ):
                self._engine.cancel(one.name)
            return
        one.check_end(event)
        tally, seen = self._tally, one.observer
        tally.ends[event.reason.value] += 1
        tally.scored += len(seen.shown)
        tally.generated += max(0, len(seen.shown) - len(one.prompt))
        tally.wrong += [f"{one.name}: {what}" for what in one.wrong]
        self._free.release()
        with self._idle:
            self._open -= 1
            self._idle.notify_all()


def _generation(
    number: int, subject: Subject, dice: random.Random, features: Sequence[int], *, shares: bool = False
) -> TrackedRequest:
    vocabulary = min(len(subject.loaded.tokenizer), subject.loaded.rows)
    length = dice.choice((1, 3, 10, 30, 90))
    told = not shares or dice.random() < 0.2
    same = random.Random(dice.randrange(4)) if shares else None
    beginning = [] if same is None else [same.randrange(3, vocabulary) for _ in range(same.choice((40, 100)))]
    prompt = (
        *subject.loaded.text.begin,
        *beginning,
        *(dice.randrange(3, vocabulary) for _ in range(length)),
    )
    clamps = tuple(Clamp(feature, dice.choice((-1.0, 0.0))) for feature in dice.sample(list(features), 3))
    observer = RandomObserver(random.Random(number), clamps)
    cancel = dice.choice((None,) * 5 + (0, 1, 12))
    return TrackedRequest(f"g{number}", prompt, observer, cancel, told)


def cover_on_vllm(
    subject: Subject,
    tokens: int,
    *,
    running: int = 32,
    seed: int = 0,
    cache: int | None = None,
    eager: bool = True,
    overlapping: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> CoverageCount:
    """As `cover`, in vLLM's core. With `cache`, its KV cache holds about so many tokens, and requests are preempted."""
    from monitor.bench.engines import on_vllm
    from monitor.vllm.names import async_scheduling

    more: dict[str, Any] = {"block_size": _BLOCK, "enforce_eager": eager}
    if cache is not None:
        more["num_gpu_blocks_override"] = cache // _BLOCK + 1
    with tempfile.TemporaryDirectory() as folder:
        subject.loaded.model.save_pretrained(folder)
        batcher = on_vllm(subject, Path(folder), caching=True, more=more | {"async_scheduling": overlapping})
        with async_scheduling() if overlapping else nullcontext():
            return cover(subject, tokens, running=running, seed=seed, batcher=batcher, progress=progress)


@app.command()
def main(
    tokens: Annotated[int, typer.Option(help="Number of tokens to generate.")] = 100_000,
    model: Annotated[
        str, typer.Option(help="The model to run: demo, smollm2, or random for random weights.")
    ] = "demo",
    running: Annotated[int, typer.Option(help="Largest number of requests in one forward pass.")] = 32,
    cache: Annotated[
        int | None,
        typer.Option(
            help="Size of the KV cache in tokens. A small one makes requests be evicted and run again."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option(help="builtin, or vllm where vLLM is installed in this environment.")
    ] = "builtin",
    overlapping: Annotated[
        bool, typer.Option(help="Have vLLM lay out a pass while the one before it runs, on CPUs too.")
    ] = False,
    threads: Annotated[int, typer.Option(help="Number of torch threads; 0 keeps torch's default.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.")] = 0,
) -> None:
    """Generate with random arrivals, cancellations, stop strings and blocks, and count scored tokens."""
    if threads:
        torch.set_num_threads(threads)
    if model not in MAKERS:
        raise typer.BadParameter(f"{model!r} is unknown; write {', '.join(MAKERS)}", param_hint="--model")
    if engine not in ("builtin", "vllm"):
        raise typer.BadParameter(f"{engine!r} is unknown; write builtin or vllm", param_hint="--engine")
    if overlapping and engine != "vllm":
        raise typer.BadParameter("only vLLM does; write --engine vllm", param_hint="--overlapping")
    run = cover if engine == "builtin" else partial(cover_on_vllm, overlapping=overlapping)
    tally = run(MAKERS[model]("cpu", "float32"), tokens, running=running, seed=seed, cache=cache)
    report(tally)
    sys.exit(0 if tally.complete else 1)


def report(tally: CoverageCount) -> None:
    """Print the counts."""
    share = tally.scored / max(1, tally.ran + tally.cached)
    cached = f"{tally.cached} taken from the prefix cache, " if tally.cached else ""
    lines = [
        f"{tally.generated} tokens generated in {tally.seconds:.0f} s, {tally.ran} run, {cached}{tally.scored} scored",
        f"coverage {share:.6%}",
        "ends: " + ", ".join(f"{count} {reason}" for reason, count in tally.ends.most_common()),
        *(f"WRONG {what}" for what in tally.wrong[:20]),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    app()
