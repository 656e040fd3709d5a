"""What engine, rules, scorer and sampler cost the host beside the model: `python -m monitor.bench.host_time`.

No model runs: passes are laid out and their readings filled in with what the bundled pair reads in benign texts, halved
so that no rule fires unless it says so. Times are CPU time of the thread that does the work: the 25th percentile, the
mean and the 99th percentile, because what is done in every few passes alone shows in the latter two.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from monitor.bench.around import Watch, bank_for, shipped, watching
from monitor.bench.models import Subject, demo
from monitor.model.engine.engine import Engine
from monitor.model.engine.liveness import Nobody
from monitor.model.engine.paged import Limits, Steps
from monitor.model.engine.readout import Taken
from monitor.model.engine.requests import Emit, Event, GenerationRequest
from monitor.model.engine.sampler import Draw, Sampler
from monitor.model.load.model import LoadedModel
from monitor.model.offline.residuals import Harvester
from monitor.model.prompts import Prompter
from monitor.model.tap.bank import FeatureBank
from monitor.model.tap.span import Span
from monitor.model.tap.tap import Tap
from monitor.pairs.registry import named
from monitor.policy.policyset import PolicySet
from monitor.records import Blocks, Phase, Readings, Sampling, TokenBlock
from monitor.rpc.assembly import bundled_policies
from monitor.rpc.mailbox import PostOffice

PROMPT = 16
"""Tokens of each request's prompt."""
WARM = 6
"""Passes that are not counted."""

app = typer.Typer(add_completion=False)


@app.command()
def main(
    requests: Annotated[int, typer.Option(help="Requests that decode together.")] = 256,
    passes: Annotated[int, typer.Option(help="Passes that are measured.")] = 120,
    out: Annotated[Path | None, typer.Option(help="Write all numbers here as JSON.")] = None,
) -> None:
    """CPU time per request and pass, per token of a prompt, per choice of tokens, per text with its tokens."""
    torch.set_num_threads(1)
    subject = demo("cpu", "auto")
    policies = shipped(subject, named("tiny"))
    bank = bank_for(subject, policies)
    pool, ids = _pool(subject, bank)
    found: dict[str, NDArray[np.float64]] = {}
    for level in ("no rules", "eleven policies", "policies, log, metrics, mailbox"):
        for temperature in (0.0, 0.7):
            name = f"{level}, temperature {temperature:g}: µs per request and pass"
            found[name] = _decode(subject, bank, policies, pool, ids, (level, requests, passes, temperature))
    for tokens, texts in ((64, 32), (512, 4), (8192, 1)):
        name = f"rules of {texts} prompt{'s' * (texts > 1)} of {tokens} tokens"
        found[f"{name}: µs per token"] = _prompts(policies, pool, tokens, texts)
        found[f"{name}, most rules firing: µs per token"] = _prompts(policies, pool.times(6.0), tokens, texts)
    for rows, vocabulary in ((32, 8192), (32, 128_256)):
        for name, sampling in _SAMPLINGS.items():
            found[f"choice of {rows} tokens of {vocabulary}, {name}: ms"] = _choice(
                rows, vocabulary, sampling
            )
    found["tokens with readings for a caller: µs per token, on the scorer's thread"] = _tokens(bank, pool)
    _show(found)
    if out is not None:
        out.write_text(json.dumps({name: _told(each) for name, each in found.items()}, indent=1))


_SAMPLINGS = {
    "temperature": Sampling(temperature=0.7),
    "temperature, top_p": Sampling(temperature=0.7, top_p=0.9),
    "temperature, top_k": Sampling(temperature=0.7, top_k=50),
}


class _Laid:
    """A batcher that runs nothing: whoever measures lays out the passes."""

    static = False

    def __init__(self, loaded: LoadedModel, limits: Limits, steps: Steps) -> None:
        self._steps, self._rows = steps, limits.batch_tokens or 1

    def start(self) -> None:
        self._steps.ready(self._rows)

    def stop(self, timeout: float) -> None: ...

    def alive(self) -> bool:
        return True

    def running(self) -> int:
        return 0

    def cache_used(self) -> float:
        return 0.0

    def add(self, request_id: str, prompt_ids: Sequence[int], max_new_tokens: int) -> None: ...

    def remove(self, request_id: str) -> None: ...


@dataclass(frozen=True)
class ReadPool:
    """What policies read, `[tokens, …]` each, at half of what it was, so that hardly anything fires."""

    readings: torch.Tensor
    """Of the watched features."""
    others: torch.Tensor
    """Of probes and signals, by their columns in the tap."""
    read: NDArray[np.intp]
    """Columns of those that policies read."""

    def times(self, factor: float) -> ReadPool:
        """All of it, so many times as high."""
        return ReadPool(factor * self.readings, factor * self.others, self.read)

    def rows(self, chosen: torch.Tensor) -> Readings:
        """Some tokens as rules get them: features, then probes and signals."""
        others = self.others[chosen].numpy()[:, self.read]
        return np.concatenate([self.readings[chosen].numpy(), others], axis=1)


@torch.no_grad()
def _pool(subject: Subject, bank: FeatureBank) -> tuple[ReadPool, list[int]]:
    """What policies read in benign texts, and the ids of their tokens."""
    prompter = Prompter(subject.loaded)
    plain = Harvester(subject.loaded, subject.layer)
    rows: list[torch.Tensor] = []
    others: list[torch.Tensor] = []
    ids: list[int] = []
    for line in (bundled_policies() / "benign.jsonl").read_text().splitlines()[:200]:
        own = prompter(json.loads(line)["text"], truncate=True, room=1, reply=False).ids
        x = plain.residuals(torch.tensor([list(own)]))[0, 1:]
        read, _ = bank.activations(x, bank.read)
        rows.append(0.5 * read * bank.unit[: bank.read])
        others.append(0.5 * bank.others.read(x))
        ids += own[1:]
    none = np.zeros(0, np.intp)
    return ReadPool(
        torch.cat(rows), torch.cat(others), none if bank.first_others is None else bank.first_others
    ), ids


def _decode(
    subject: Subject,
    bank: FeatureBank,
    policies: PolicySet,
    pool: ReadPool,
    ids: list[int],
    how: tuple[str, int, int, float],
) -> NDArray[np.float64]:
    """Microseconds per request of each pass, of the engine's thread."""
    level, requests, passes, temperature = how
    limits = Limits(running=requests, batch_tokens=requests * PROMPT)
    tap = Tap(bank, subject.loaded.layers[subject.layer])
    engine = Engine(subject.loaded, bank, tap, limits=limits, waiting=requests, batcher=_Laid)
    engine._end_ids = frozenset()
    engine.start()
    chance = random.Random(0)
    with watching(policies) as watch, _emitting(requests, full=level.endswith("mailbox")) as emit:
        held = []
        for number in range(requests):
            request, keep = _request(
                level, number, watch, Sampling(400, temperature=temperature), ids, chance
            )
            held.append(keep)
            engine.submit(request, emit)
        times = [_pass(engine, pool, ids, chance, n) for n in range(passes + WARM)]
        del held
    return np.asarray(times[WARM:]) / requests * 1e6


def _request(
    level: str, number: int, watch: Watch, sampling: Sampling, ids: list[int], chance: random.Random
) -> tuple[GenerationRequest, object]:
    """A request of one of the levels, and what must be kept as long as it runs."""
    prompt = (0, *(chance.choice(ids) for _ in range(PROMPT - 1)))
    if level == "no rules":
        return GenerationRequest(f"r{number}", prompt, sampling, _NOBODY, _NOBODY), None
    if level == "eleven policies":
        judge = watch.policies.start(str)
        return GenerationRequest(f"r{number}", prompt, sampling, watch.policies.rules, judge), judge
    judge, trail = watch.open()
    return GenerationRequest(
        f"r{number}", prompt, sampling, watch.observer, judge, admitted=trail.admitted
    ), trail


_NOBODY = Nobody()


@contextmanager
def _emitting(requests: int, *, full: bool) -> Iterator[Emit]:
    """Where events go: nowhere, or into mailboxes that a loop on another thread reads."""
    if not full:
        yield lambda _: None
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    office: PostOffice[Event] = PostOffice(loop)

    async def read(name: str) -> None:
        with office.box(name) as box:
            while True:
                await box.read()

    async def begin() -> list[asyncio.Task[None]]:
        readers = [asyncio.create_task(read(f"r{number}")) for number in range(requests)]
        await asyncio.sleep(0)
        return readers

    async def end(readers: list[asyncio.Task[None]]) -> None:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)

    readers = asyncio.run_coroutine_threadsafe(begin(), loop).result()
    try:
        yield office.deliver
    finally:
        asyncio.run_coroutine_threadsafe(end(readers), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _pass(engine: Engine, pool: ReadPool, ids: list[int], chance: random.Random, number: int) -> float:
    """Seconds of one pass, all that the model and the choice of tokens take left out."""
    sequences = list(engine._sequences.values())
    count, position = (PROMPT, 0) if number == 0 else (1, PROMPT + number - 1)
    rows = count * len(sequences)
    run = [token for s in sequences for token in s.ids[position : position + count]]
    drawn: list[int | None] = [chance.choice(ids) for _ in sequences]
    chosen = torch.randint(len(pool.readings), (rows,))
    filler, others = pool.readings[chosen], pool.others[chosen]
    began = time.thread_time()
    spans = [Span(s.request_id, i * count, count, position, True) for i, s in enumerate(sequences)]
    engine.before(spans, rows)
    laid_out = time.thread_time()
    assert engine._work is not None
    engine._work.buffers.readings[:rows, : filler.shape[1]] = filler
    engine._work.buffers.others[:rows, : others.shape[1]] = others
    engine._work.sampler._broken[: len(sequences)] = False
    ran = time.thread_time()
    engine.after(spans, drawn, run)
    ended = time.thread_time()
    if any(sequence.ended for sequence in sequences):
        raise RuntimeError("a request ended; the measurement is void")
    return (laid_out - began) + (ended - ran)


def _prompts(policies: PolicySet, pool: ReadPool, tokens: int, texts: int) -> NDArray[np.float64]:
    """Microseconds per token of prompts that are scored in one call."""
    chance = np.random.default_rng(0)

    def once() -> float:
        judges = [policies.start(str) for _ in range(texts)]
        blocks = Blocks.of([(judge.slot, _block(pool, chance, tokens)) for judge in judges])
        began = time.thread_time()
        policies.rules.observe_batch(blocks)
        return time.thread_time() - began

    return _times(once) / (tokens * texts) * 1e6


def _block(pool: ReadPool, chance: np.random.Generator, tokens: int) -> TokenBlock:
    readings = pool.rows(torch.from_numpy(chance.integers(0, len(pool.readings), tokens)))
    return TokenBlock(Phase.PROMPT, 0, tuple(chance.integers(5, 8000, tokens).tolist()), readings)


def _choice(rows: int, vocabulary: int, sampling: Sampling) -> NDArray[np.float64]:
    """Milliseconds of choosing a token for every row."""
    sampler, draws = Sampler(rows, torch.device("cpu")), [Draw(sampling) for _ in range(rows)]
    logits = 3 * torch.randn(rows, vocabulary)

    def once() -> float:
        began = time.thread_time()
        sampler.prepare(draws)
        sampler.choose(logits)
        return time.thread_time() - began

    return _times(once) * 1e3


def _tokens(bank: FeatureBank, pool: ReadPool, tokens: int = 2048) -> NDArray[np.float64]:
    """Microseconds per token of what the scorer keeps for callers who ask for readings."""
    readings: NDArray[np.float32] = np.zeros((tokens, bank.width), np.float32)
    readings[:, : pool.readings.shape[1]] = pool.readings[:tokens].numpy()
    taken = Taken(bank, readings, bank.read)

    def once() -> float:
        began = time.thread_time()
        taken.tokens(Phase.PROMPT, 0, tuple(range(tokens)), 0, None)
        return time.thread_time() - began

    return _times(once) / tokens * 1e6


def _times(once: Callable[[], float], times: int = 40) -> NDArray[np.float64]:
    """Seconds of each of so many times, after one that is not counted."""
    once()
    return np.asarray([once() for _ in range(times)])


def _told(each: NDArray[np.float64]) -> dict[str, float]:
    low, high = np.percentile(each, [25, 99])
    return {"25th percentile": float(low), "mean": float(each.mean()), "99th percentile": float(high)}


def _show(found: dict[str, NDArray[np.float64]]) -> None:
    table = Table("CPU time", "25 %", "mean", "99 %")
    for name, each in found.items():
        table.add_row(name, *(f"{value:.2f}" for value in _told(each).values()))
    Console(width=110).print(table)


if __name__ == "__main__":
    app()
