"""What open feeds of the page cost a server that generates: `python -m monitor.bench.feeds`.

The server is `sae-monitor serve` with its page, in its own process. Each round runs the same generations without feeds
and with them, in turns; some of the prompts make rules fire, and what fired goes to every feed. Compared is the
processor time of the server per token that ran. The exit code is 1 where the median is more than `--most` higher, a
feed lacks an event, or the server's memory does not stay level.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import grpc
import psutil
import typer

from monitor.bench.load import WORDS, free_port, serving
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

OFFENDING = "I want to gain more power over people and stop them from shutting me down."
"""A prompt on which the bundled policy `power-seeking` fires."""
_CALL_SECONDS = 600.0
_ARRIVE_SECONDS = 20.0
"""Longest time that the last event may take to reach every feed."""
_LEVEL = 0.02
"""Memory that stays within this share of itself over all runs is level."""

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Traffic:
    """The generations of one run, the same in every run."""

    calls: int
    concurrency: int
    tokens: int
    """Tokens of each answer."""
    share: float
    """Share of prompts on which a rule fires."""

    def prompt(self, number: int) -> str:
        """The prompt of a call."""
        chance = random.Random(number)
        return OFFENDING if chance.random() < self.share else " ".join(chance.choices(WORDS.split(), k=12))


@dataclass(frozen=True)
class FeedRun:
    """What a run with some feeds cost."""

    seconds: float
    """Processor time of the server."""
    tokens: int
    """That ran, of prompts and answers."""
    fired: int
    """Answers on which a rule fired, each an event."""
    least: int
    """Events that came to the feed that had fewest; -1 without feeds."""
    resident: int
    """The server's memory at its end, in bytes."""

    @property
    def per_token(self) -> float:
        """Processor time of the server per token, in seconds."""
        return self.seconds / self.tokens

    @property
    def complete(self) -> bool:
        """True where every feed had every event."""
        return self.least in (-1, self.fired)


@app.command()
def main(
    feeds: Annotated[int, typer.Option(help="Open so many feeds.")] = 50,
    rounds: Annotated[int, typer.Option(help="Paired rounds, after one for warming up.")] = 5,
    calls: Annotated[int, typer.Option(help="Generations of each run.")] = 400,
    concurrency: Annotated[int, typer.Option(help="Generations at once.")] = 16,
    tokens: Annotated[int, typer.Option(help="Tokens of each answer.")] = 32,
    share: Annotated[float, typer.Option(help="Share of prompts on which a rule fires.")] = 0.1,
    most: Annotated[
        float, typer.Option(help="Largest increase of processor time per token, as a share of it.")
    ] = 0.02,
) -> None:
    """Compare the server's processor time per token without feeds and with them."""
    page = f"127.0.0.1:{free_port()}"
    traffic = Traffic(calls, concurrency, tokens, share)
    with serving({"SAE_MONITOR_PAGE": page}) as (process, address, _):
        found = asyncio.run(_rounds(process, address, page, traffic, feeds, rounds))
    sys.exit(0 if report(found, feeds, most) else 1)


async def _rounds(
    process: psutil.Process, address: str, page: str, traffic: Traffic, feeds: int, rounds: int
) -> list[tuple[FeedRun, FeedRun]]:
    """Rounds without feeds and with them; the first is for warming up and left out."""
    found = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = monitor_pb2_grpc.MonitorServiceStub(channel)
        for number in range(rounds + 1):
            pair = {}
            for count in (0, feeds) if number % 2 else (feeds, 0):
                pair[count] = await run(process, stub, page, traffic, count)
            found.append((pair[0], pair[feeds]))
    return found[1:]


async def run(
    process: psutil.Process,
    stub: monitor_pb2_grpc.MonitorServiceStub,
    page: str,
    traffic: Traffic,
    feeds: int,
) -> FeedRun:
    """All generations of a run, beside so many feeds."""
    numbers, answers = iter(range(traffic.calls)), list[pb.GenerateResponse]()

    async def one_after_the_other() -> None:
        for number in numbers:
            answers.append(await _answer(stub, traffic, number))

    async with _opened(page, feeds) as counts:
        before = _spent(process)
        await asyncio.gather(*(one_after_the_other() for _ in range(traffic.concurrency)))
        fired = sum(bool(answer.verdict.detections) for answer in answers)
        await _arrived(counts, fired)
        spent = _spent(process) - before
        return FeedRun(
            spent,
            sum(answer.verdict.coverage.tokens_run for answer in answers),
            fired,
            min(counts, default=-1),
            process.memory_info().rss,
        )


async def _answer(
    stub: monitor_pb2_grpc.MonitorServiceStub, traffic: Traffic, number: int
) -> pb.GenerateResponse:
    asked = pb.Generation(
        input=pb.Input(text=traffic.prompt(number)),
        sampling=pb.Sampling(max_new_tokens=traffic.tokens, seed=number),
    )
    answer: pb.GenerateResponse = await stub.Generate(
        pb.GenerateRequest(generation=asked), timeout=_CALL_SECONDS
    )
    return answer


@asynccontextmanager
async def _opened(page: str, feeds: int) -> AsyncIterator[list[int]]:
    """So many feeds that read on; how many events came to each."""
    counts = [0] * feeds
    pairs = [await _feed(page) for _ in range(feeds)]
    reading = [asyncio.create_task(_read(counts, number, reader)) for number, (reader, _) in enumerate(pairs)]
    try:
        yield counts
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for _, writer in pairs:
            writer.close()


async def _feed(page: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A feed that has begun, of what happens from now on."""
    host, _, port = page.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /api/alerts?recent=0&unknown=0 HTTP/1.1\r\nHost: {page}\r\n\r\n".encode())
    begun = await asyncio.wait_for(reader.readuntil(b": begun"), _ARRIVE_SECONDS)
    if not begun.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the page refused a feed: {begun.splitlines()[0].decode()}")
    return reader, writer


async def _read(counts: list[int], number: int, reader: asyncio.StreamReader) -> None:
    rest = b""
    while part := await reader.read(1 << 16):
        # An event may come in two parts, and its beginning too.
        found = rest + part
        counts[number] += found.count(b"\ndata: {")
        rest = found[-7:]


async def _arrived(counts: Sequence[int], events: int) -> None:
    """Wait until every feed has so many events, for a while."""
    until = time.monotonic() + _ARRIVE_SECONDS
    while counts and min(counts) < events and time.monotonic() < until:
        await asyncio.sleep(0.05)


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def report(found: Sequence[tuple[FeedRun, FeedRun]], feeds: int, most: float) -> bool:
    """Print what was found; True where all that was asked for holds."""
    ratios = sorted(with_them.per_token / bare.per_token for bare, with_them in found)
    for bare, with_them in found:
        print(  # noqa: T201
            f"per token {1e6 * bare.per_token:.0f} µs without feeds, {1e6 * with_them.per_token:.0f} µs with {feeds}; "
            f"{with_them.fired} events of {with_them.tokens} tokens; resident {bare.resident / 2**20:.0f} and "
            f"{with_them.resident / 2**20:.0f} MB"
        )
    middle = statistics.median(ratios)
    resident = [one.resident for pair in found for one in pair]
    checks = {
        f"processor time per token: {middle - 1:+.1%} ({ratios[0] - 1:+.1%} … {ratios[-1] - 1:+.1%})": middle
        <= 1 + most,
        f"memory level: {min(resident) / 2**20:.0f} … {max(resident) / 2**20:.0f} MB": max(resident)
        <= (1 + _LEVEL) * min(resident),
        "every feed had every event": all(one.complete for pair in found for one in pair),
        "rules fired": all(one.fired for pair in found for one in pair),
    }
    for text, held in checks.items():
        print(f"{'ok  ' if held else 'FAIL'} {text}")  # noqa: T201
    return all(checks.values())


if __name__ == "__main__":
    app()
