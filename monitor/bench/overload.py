"""Four times what the server can do: `python -m monitor.bench.overload`.

Measures capacity first: as many callers as the server has places, each sending one call after the other. Then calls
arrive at random moments (a Poisson process) at a multiple of that rate, whatever becomes of them, as from a crowd that
does not wait. Holds what must hold: accepted calls end within twice the time that they took at capacity (p99), every
other call is refused with RESOURCE_EXHAUSTED and a time to wait, quickly, nothing fails otherwise, as much work is
done as before, and memory stays flat. Exits 1 where one does not hold.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
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
class Phase:
    """What came back in one phase."""

    name: str
    seconds: float = 0.0
    offered: int = 0
    accepted: list[float] = field(default_factory=list)
    """Seconds of each call that was served."""
    refused: list[float] = field(default_factory=list)
    """Seconds of each call that was refused as it must be."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Everything else, by status."""
    resident: list[int] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Calls served per second."""
        return len(self.accepted) / self.seconds

    @property
    def growth(self) -> float:
        """Memory in the last fifth against the second fifth, as a share."""
        fifth = max(1, len(self.resident) // 5)
        return statistics.mean(self.resident[-fifth:]) / statistics.mean(self.resident[fifth : 2 * fifth]) - 1

    def line(self) -> str:
        """For people."""
        text = f"{self.name:9} offered {self.offered / self.seconds:7.1f}/s  served {self.rate:7.1f}/s"
        text += f"  p50 {_ms(self.accepted, 0.5)}  p99 {_ms(self.accepted, 0.99)}"
        if self.refused:
            text += f"  refused {len(self.refused) / self.seconds:.1f}/s in p99 {_ms(self.refused, 0.99)}"
        memory = f"  memory {self.resident[-1] / 2**20:.0f} MiB ({self.growth:+.1%})" if self.resident else ""
        return text + memory + (f"  WRONG {dict(self.wrong)}" if self.wrong else "")


@app.command()
def main(
    seconds: Annotated[float, typer.Option(help="Length of the overload; 600 is the full run.")] = 60.0,
    times: Annotated[float, typer.Option(help="Multiple of capacity that arrives.")] = 4.0,
    places: Annotated[int, typer.Option(help="Calls that the server lets in at once.")] = 32,
    capacity_seconds: Annotated[float, typer.Option(help="Length of the measurement of capacity.")] = 20.0,
    new_tokens: Annotated[int, typer.Option(help="Tokens of each generation.")] = 24,
    slower: Annotated[float, typer.Option(help="Most by which p99 of served calls may grow.")] = 2.0,
    growth: Annotated[float, typer.Option(help="Most growth of memory, as a share.")] = 0.05,
    out: Annotated[Path | None, typer.Option(help="Write the numbers here as JSON.")] = None,
) -> None:
    """Measure capacity, then send a multiple of it."""
    told = {"SAE_MONITOR_MAX_CONCURRENT_CALLS": str(places), "SAE_MONITOR_LOG_LEVEL": "error"}
    with serving(told) as (process, address, _):
        phases = asyncio.run(_phases(process, address, seconds, times, places, capacity_seconds, new_tokens))
    capacity, overload = phases
    checks = judge(capacity, overload, slower, growth)
    for phase in phases:
        print(phase.line())  # noqa: T201
    for text, held in checks.items():
        print(f"{'ok  ' if held else 'FAIL'} {text}")  # noqa: T201
    if out is not None:
        out.write_text(json.dumps({p.name: _numbers(p) for p in phases} | {"checks": checks}, indent=1))
    sys.exit(0 if all(checks.values()) else 1)


def judge(capacity: Phase, overload: Phase, slower: float, growth: float) -> dict[str, bool]:
    """What must hold, in words with the numbers, and whether it does."""
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
    places: int,
    capacity_seconds: float,
    new_tokens: int,
) -> tuple[Phase, Phase]:
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
        stubs = [
            monitor_pb2_grpc.MonitorServiceStub(await stack.enter_async_context(channel))
            for channel in channels
        ]
        client = _Client(stubs, new_tokens)
        await _closed(Phase("warming"), client, process, places, min(5.0, capacity_seconds))
        capacity = await _closed(Phase("capacity"), client, process, places, capacity_seconds)
        overload = await _open(Phase("overload"), client, process, times * capacity.rate, seconds)
        return capacity, overload


class _Client:
    """Sends calls of a fixed mixture: as many generations as texts to score."""

    def __init__(self, stubs: Sequence[Any], new_tokens: int) -> None:
        self._stubs, self._new_tokens = stubs, new_tokens
        self._chance = random.Random(0)

    async def call(self, phase: Phase) -> None:
        """One call, noted in the phase."""
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
    """True for a refusal that says when to come again."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return False
    status = rpc_status.from_call(error)
    retry = error_details_pb2.RetryInfo()
    return status is not None and any(detail.Unpack(retry) for detail in status.details)


async def _closed(
    phase: Phase, client: _Client, process: psutil.Process, callers: int, seconds: float
) -> Phase:
    """So many callers, each sending its next call when the last one ended."""
    began = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - began < seconds:
            await client.call(phase)

    async with _watched(phase, process):
        await asyncio.gather(*(caller() for _ in range(callers)))
    phase.seconds = time.perf_counter() - began
    return phase


async def _open(phase: Phase, client: _Client, process: psutil.Process, rate: float, seconds: float) -> Phase:
    """Calls at random moments, so many per second, whatever becomes of those before."""
    chance, running = random.Random(1), set[asyncio.Task[None]]()
    began = due = time.perf_counter()
    async with _watched(phase, process):
        while due - began < seconds:
            due += chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            task = asyncio.create_task(client.call(phase))
            running.add(task)
            task.add_done_callback(running.discard)
        phase.seconds = time.perf_counter() - began
        await asyncio.gather(*running)
    return phase


class _watched:  # noqa: N801  (reads as a verb)
    """Notes the server's memory while a phase runs."""

    def __init__(self, phase: Phase, process: psutil.Process) -> None:
        self._phase, self._process = phase, process

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._watch())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self._phase.resident.append(self._process.memory_info().rss)
            await asyncio.sleep(0.5)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def _ms(values: Sequence[float], share: float) -> str:
    return f"{_quantile(values, share) * 1000:.0f} ms"


def _numbers(phase: Phase) -> dict[str, Any]:
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
