"""A server under four times its capacity: `python -m monitor.bench.overload`.

First the capacity is measured, with as many callers as the server accepts at once, each sending one call after the
other. Then calls arrive at a multiple of that rate, as a Poisson process that does not wait for answers. The checks
are: the p99 of accepted calls at most doubles; every other call is refused quickly, with RESOURCE_EXHAUSTED and a retry
delay; nothing fails in another way; at least 70 % of the work at capacity is still done; and memory does not grow. The
exit code is 1 where one fails.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import grpc
import psutil
import typer
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from monitor.bench.load import WORDS, serving
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

CHANNELS = 4
DEADLINE = 120.0

app = typer.Typer(add_completion=False)


@dataclass
class LoadPhase:
    """The results of one phase of calls."""

    name: str
    seconds: float = 0.0
    """Duration of the phase."""
    offered: int = 0
    """Number of calls that were sent."""
    accepted: list[float] = field(default_factory=list)
    """Seconds of each call that was served."""
    refused: list[float] = field(default_factory=list)
    """Seconds of each call that was refused with a retry delay."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Number of calls that ended in any other way, by status."""
    resident: list[int] = field(default_factory=list)
    """The server's resident memory in bytes, sampled twice a second."""

    @property
    def rate(self) -> float:
        """Number of calls served per second."""
        return len(self.accepted) / self.seconds

    @property
    def growth(self) -> float:
        """Growth of memory from the second fifth of the phase to the last, as a share."""
        fifth = max(1, len(self.resident) // 5)
        return statistics.mean(self.resident[-fifth:]) / statistics.mean(self.resident[fifth : 2 * fifth]) - 1

    def line(self) -> str:
        """The results in one line of text."""
        text = f"{self.name:9} offered {self.offered / self.seconds:7.1f}/s  served {self.rate:7.1f}/s"
        text += f"  p50 {_ms(self.accepted, 0.5)}  p99 {_ms(self.accepted, 0.99)}"
        if self.refused:
            text += f"  refused {len(self.refused) / self.seconds:.1f}/s in p99 {_ms(self.refused, 0.99)}"
        memory = f"  memory {self.resident[-1] / 2**20:.0f} MiB ({self.growth:+.1%})" if self.resident else ""
        return text + memory + (f"  WRONG {dict(self.wrong)}" if self.wrong else "")


@app.command()
def main(
    seconds: Annotated[
        float, typer.Option(help="Duration of the overload in seconds. A full run has 600.")
    ] = 60.0,
    times: Annotated[float, typer.Option(help="Rate of arriving calls as a multiple of the capacity.")] = 4.0,
    concurrent_calls: Annotated[
        int, typer.Option(help="Number of calls that the server accepts at once.")
    ] = 32,
    capacity_seconds: Annotated[
        float, typer.Option(help="Duration of the capacity measurement in seconds.")
    ] = 20.0,
    new_tokens: Annotated[int, typer.Option(help="Number of tokens of each generation.")] = 24,
    slower: Annotated[
        float, typer.Option(help="Largest factor by which the p99 of served calls may grow.")
    ] = 2.0,
    growth: Annotated[float, typer.Option(help="Largest growth of memory, as a share of it.")] = 0.05,
    out: Annotated[Path | None, typer.Option(help="File to write the measurements to, as JSON.")] = None,
) -> None:
    """Measure the server's capacity, then send calls at a multiple of it and check the results."""
    told = {"SAE_MONITOR_MAX_CONCURRENT_CALLS": str(concurrent_calls), "SAE_MONITOR_LOG_LEVEL": "error"}
    with serving(told) as (process, address, _):
        phases = asyncio.run(
            _phases(process, address, seconds, times, concurrent_calls, capacity_seconds, new_tokens)
        )
    capacity, overload = phases
    checks = judge(capacity, overload, slower, growth)
    for phase in phases:
        print(phase.line())  # noqa: T201
    for text, held in checks.items():
        print(f"{'ok  ' if held else 'FAIL'} {text}")  # noqa: T201
    if out is not None:
        out.write_text(json.dumps({p.name: _numbers(p) for p in phases} | {"checks": checks}, indent=1))
    sys.exit(0 if all(checks.values()) else 1)


def judge(capacity: LoadPhase, overload: LoadPhase, slower: float, growth: float) -> dict[str, bool]:
    """The checks, each as a sentence with its numbers, and whether they hold."""
    ratio = _quantile(overload.accepted, 0.99) / _quantile(capacity.accepted, 0.99)
    done = overload.rate / capacity.rate
    quick = _quantile(overload.refused, 0.99)
    return {
        f"p99 of served calls is {ratio:.2f} times that at capacity (at most {slower:g})": ratio <= slower,
        f"everything else was refused cleanly: {dict(overload.wrong) or 'nothing wrong'}": not overload.wrong
        and bool(overload.refused),
        f"refusals take {quick * 1000:.0f} ms (p99), less than served calls": quick
        < _quantile(overload.accepted, 0.99),
        f"{done:.0%} of the work at capacity is done (at least 70 %)": done >= 0.7,
        f"memory grew by {overload.growth:+.1%} (at most {growth:.0%})": overload.growth <= growth,
        f"nothing was refused or wrong at capacity: {dict(capacity.wrong) or 'nothing'}": not capacity.wrong
        and not capacity.refused,
    }


async def _phases(
    process: psutil.Process,
    address: str,
    seconds: float,
    times: float,
    concurrent_calls: int,
    capacity_seconds: float,
    new_tokens: int,
) -> tuple[LoadPhase, LoadPhase]:
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        stubs = [
            monitor_pb2_grpc.MonitorServiceStub(await stack.enter_async_context(channel))
            for channel in channels
        ]
        client = _Client(stubs, new_tokens)
        await _closed(LoadPhase("warming"), client, process, concurrent_calls, min(5.0, capacity_seconds))
        capacity = await _closed(LoadPhase("capacity"), client, process, concurrent_calls, capacity_seconds)
        overload = await _open(LoadPhase("overload"), client, process, times * capacity.rate, seconds)
        return capacity, overload


class _Client:
    """Sends `Generate` and `Score` calls in turn."""

    def __init__(self, stubs: Sequence[Any], new_tokens: int) -> None:
        self._stubs, self._new_tokens = stubs, new_tokens
        self._chance = random.Random(0)

    async def call(self, phase: LoadPhase) -> None:
        """Send one call and record its result in the phase."""
        number = phase.offered
        phase.offered += 1
        text = pb.Input(text=" ".join(self._chance.choices(WORDS.split(), k=self._chance.randint(5, 40))))
        stub = self._stubs[number % len(self._stubs)]
        began = time.perf_counter()
        try:
            if number % 2:
                await stub.Score(pb.ScoreRequest(input=text), timeout=DEADLINE)
            else:
                sampling = pb.Sampling(max_new_tokens=self._new_tokens, temperature=1.0, seed=number)
                asked = pb.Generation(input=text, sampling=sampling)
                await stub.Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            if _clean(error):
                phase.refused.append(time.perf_counter() - began)
            else:
                phase.wrong[f"{error.code().name}: {error.details()}"] += 1
            return
        phase.accepted.append(time.perf_counter() - began)


def _clean(error: grpc.aio.AioRpcError) -> bool:
    """True for a refusal with a retry delay."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    status = rpc_status.from_call(error)
    retry = error_details_pb2.RetryInfo()
    return status is not None and any(detail.Unpack(retry) for detail in status.details)


async def _closed(
    phase: LoadPhase, client: _Client, process: psutil.Process, callers: int, seconds: float
) -> LoadPhase:
    """Run `callers` callers for `seconds`; each sends its next call when the last one has ended."""
    began = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            await client.call(phase)

    async with _memory_sampled(phase, process):
        await asyncio.gather(*(caller() for _ in range(callers)))
    phase.seconds = time.perf_counter() - began
    return phase


async def _open(
    phase: LoadPhase, client: _Client, process: psutil.Process, rate: float, seconds: float
) -> LoadPhase:
    """Send calls at random moments, `rate` per second on average, without waiting for answers."""
    chance, running = random.Random(1), set[asyncio.Task[None]]()
    began = due = time.perf_counter()
    async with _memory_sampled(phase, process):
        while due - began < seconds:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(client.call(phase))
            running.add(task)
            task.add_done_callback(running.discard)
        phase.seconds = time.perf_counter() - began
        await asyncio.gather(*running)
    return phase


@asynccontextmanager
async def _memory_sampled(phase: LoadPhase, process: psutil.Process) -> AsyncIterator[None]:
    """Record the server's memory twice a second while the block runs."""

    async def sample() -> None:
        while True:
            phase.resident.append(process.memory_info().rss)
            await asyncio.sleep(0.5)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def _ms(values: Sequence[float], share: float) -> str:
    return f"{_quantile(values, share) * 1000:.0f} ms"


def _numbers(phase: LoadPhase) -> dict[str, Any]:
    return {
        "seconds": phase.seconds,
        "offered": phase.offered,
        "served": len(phase.accepted),
        "refused": len(phase.refused),
        "wrong": dict(phase.wrong),
        "p50": _quantile(phase.accepted, 0.5),
        "p99": _quantile(phase.accepted, 0.99),
        "refused_p99": _quantile(phase.refused, 0.99),
        "resident": phase.resident[-1] if phase.resident else None,
        "growth": phase.growth if len(phase.resident) > 1 else None,
    }


if __name__ == "__main__":
    app()
