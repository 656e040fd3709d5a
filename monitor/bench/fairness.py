"""How scoring and generation slow each other down: `python -m monitor.bench.fairness`.

A model runs one forward pass at a time, so `Score` and `Generate` calls compete for it. In each round, one server gets
`Score` calls alone, generations alone, and both at once; with one caller of `Score`, and with many (a backlog). The
results are ratios within a round: how much slower a `Score` call becomes, and what share of the generation speed is
left. The exit code is 1 where the p99 of one caller's `Score` calls grows more than `--slower` times, or less than
`--least` of the generation speed is left.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from monitor.bench.load import WORDS, serving
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub

DEADLINE = 120.0

app = typer.Typer(add_completion=False)


@dataclass
class MixedLoad:
    """A part of a round: some callers score and some generate, at the same time."""

    scorers: int
    """Number of callers of `Score`."""
    streams: int
    """Number of generations at once."""
    scores: list[float] = field(default_factory=list)
    """Seconds of each `Score` call that ended in this part."""
    tokens: int = 0
    """Number of tokens generated in this part."""
    seconds: float = 0.0
    """Duration of this part."""

    @property
    def speed(self) -> float:
        """Generated tokens per second."""
        return self.tokens / self.seconds

    def quantile(self, q: float) -> float:
        """Quantile `q` of the seconds of a `Score` call; infinity where none ended."""
        times = sorted(self.scores)
        return times[min(int(q * len(times)), len(times) - 1)] if times else float("inf")


@app.command()
def main(
    rounds: Annotated[
        int, typer.Option(help="Number of rounds. The first is a warm-up and is not counted.")
    ] = 4,
    seconds: Annotated[
        float, typer.Option(help="Duration of each of the five parts of a round, in seconds.")
    ] = 6.0,
    scorers: Annotated[int, typer.Option(help="Number of callers of Score in the backlog.")] = 32,
    streams: Annotated[int, typer.Option(help="Number of generations at once.")] = 16,
    words: Annotated[int, typer.Option(help="Largest number of words in a text to score.")] = 80,
    slower: Annotated[
        float, typer.Option(help="Largest factor by which the p99 of one caller's Score calls may grow.")
    ] = 20.0,
    least: Annotated[
        float, typer.Option(help="Least share of the generation speed that must be left beside the backlog.")
    ] = 0.15,
    out: Annotated[Path | None, typer.Option(help="File to write the measurements to, as JSON.")] = None,
) -> None:
    """Measure how much scoring and generation slow each other down."""
    parts = [(1, 0), (scorers, 0), (0, streams), (1, streams), (scorers, streams)]
    with serving({"SAE_MONITOR_LOG_LEVEL": "error"}) as (_, address, metrics):
        measured = [asyncio.run(_round(address, metrics, parts, seconds, words, n)) for n in range(rounds)][
            1:
        ]
    checks = judge(measured, slower, least)
    for text, held in checks.items():
        print(f"{'ok  ' if held else 'FAIL'} {text}")  # noqa: T201
    if out is not None:
        out.write_text(json.dumps({"rounds": [[asdict(p) for p in r] for r in measured], "checks": checks}))
    sys.exit(0 if all(checks.values()) else 1)


def judge(measured: Sequence[Sequence[MixedLoad]], slower: float, least: float) -> dict[str, bool]:
    """The checks, each as a sentence with its numbers, and whether they hold. Prints all measurements as well."""
    _show(measured)
    single = _ratios((r[3].quantile(0.99) / r[0].quantile(0.99)) for r in measured)
    left = _ratios((r[4].speed / r[2].speed) for r in measured)
    return {
        f"one caller's p99 of Score grows {_text(single)} times beside {measured[0][3].streams} generations "
        f"(at most {slower:g})": statistics.median(single) <= slower,
        f"{_text(left)} of the generation's speed is left beside a backlog of {measured[0][4].scorers} scores "
        f"(at least {least:g})": statistics.median(left) >= least,
    }


def _show(measured: Sequence[Sequence[MixedLoad]]) -> None:
    for parts in zip(*measured, strict=True):
        first, line = parts[0], ""
        if first.scorers:
            p50, p99 = ([p.quantile(q) * 1000 for p in parts] for q in (0.5, 0.99))
            rate = statistics.median(len(p.scores) / p.seconds for p in parts)
            line += f"  Score p50 {statistics.median(p50):7.1f} ms  p99 {statistics.median(p99):7.1f} ms"
            line += f"  {rate:7.1f}/s"
        if first.streams:
            line += f"  generated {statistics.median(p.speed for p in parts):7.1f} tokens/s"
        print(f"{first.scorers:3} scoring, {first.streams:3} generating:{line}")  # noqa: T201


def _ratios(values: Iterator[float]) -> list[float]:
    return sorted(values)


def _text(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} … {ratios[-1]:.2f})"


async def _round(
    address: str, metrics: str, parts: Sequence[tuple[int, int]], seconds: float, words: int, number: int
) -> list[MixedLoad]:
    """Run every part once, in an order that changes from round to round."""
    done: dict[int, MixedLoad] = {}
    order = [(number + at) % len(parts) for at in range(len(parts))]
    async with grpc.aio.insecure_channel(address) as channel:
        stub = MonitorServiceStub(channel)
        for at in order:
            done[at] = await _part(stub, metrics, MixedLoad(*parts[at]), seconds, words)
    return [done[at] for at in range(len(parts))]


async def _part(stub: Any, metrics: str, part: MixedLoad, seconds: float, words: int) -> MixedLoad:
    over = asyncio.Event()
    chance = random.Random(part.scorers * 1000 + part.streams)
    work = [_score(stub, part, over, words, random.Random(chance.random())) for _ in range(part.scorers)]
    work += [_generate(stub, over, random.Random(chance.random())) for _ in range(part.streams)]
    running = [asyncio.create_task(one) for one in work]
    began, before = time.perf_counter(), await asyncio.to_thread(_written, metrics)
    await asyncio.sleep(seconds)
    part.tokens = await asyncio.to_thread(_written, metrics) - before
    part.seconds = time.perf_counter() - began
    over.set()
    await asyncio.gather(*running)
    return part


def _written(metrics: str) -> int:
    """Number of tokens generated since the server's start, from its metrics."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=DEADLINE) as page:
        lines = page.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith('sae_monitor_tokens_scored_total{phase="response"'))
    return int(float(line.rsplit(" ", 1)[1]))


async def _score(stub: Any, part: MixedLoad, over: asyncio.Event, words: int, chance: random.Random) -> None:
    while not over.is_set():
        text = " ".join(chance.choices(WORDS.split(), k=chance.randint(1, words)))
        began = time.perf_counter()
        await stub.Score(pb.ScoreRequest(input=pb.Input(text=text)), timeout=DEADLINE)
        part.scores.append(time.perf_counter() - began)


async def _generate(stub: Any, over: asyncio.Event, chance: random.Random) -> None:
    """Generate again and again until `over` is set."""
    while not over.is_set():
        text = " ".join(chance.choices(WORDS.split(), k=12))
        asked = pb.Generation(input=pb.Input(text=text), sampling=pb.Sampling(max_new_tokens=64))
        await stub.Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE)


if __name__ == "__main__":
    app()
