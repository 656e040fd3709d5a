"""Many `Score` calls to a real server: `python -m monitor.bench.load`.

The server is `sae-monitor serve` in its own process, with the pair `tiny` unless SAE_MONITOR_PAIR names another; calls
go over gRPC at a fixed concurrency. The checks are: no call is lost, none fails, the server's own counter agrees, and
its memory does not grow. The exit code is 1 where one fails.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated

import grpc
import psutil
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

app = typer.Typer(add_completion=False)

WORDS = """
the a power people want control help river garden plan money secret code model system trust paper morning friend we
they could should never always today because and but with without under over answer question train light
"""


@dataclass
class ScoreCalls:
    """The results of all calls."""

    codes: Counter[str] = field(default_factory=Counter)
    """Number of calls by status code."""
    incomplete: int = 0
    """Number of answers with status OK whose coverage was not complete."""
    seconds: list[float] = field(default_factory=list)
    """Duration of each call with status OK."""
    resident: list[int] = field(default_factory=list)
    """The server's resident memory in bytes, sampled about a hundred times in a run."""


@app.command()
def main(
    calls: Annotated[int, typer.Option(help="Number of calls.")] = 10_000,
    concurrency: Annotated[int, typer.Option(help="Number of calls in flight.")] = 64,
    longest: Annotated[int, typer.Option(help="Largest number of words in a text.")] = 80,
    growth: Annotated[
        float,
        typer.Option(help="Largest growth of memory after the first fifth of the calls, as a share of it."),
    ] = 0.05,
) -> None:
    """Score many texts of random lengths and check the results."""
    with serving() as (process, address, metrics):
        outcome = asyncio.run(_drive(process, address, calls, concurrency, longest))
        counted = _counted(metrics)
    sys.exit(0 if _report(outcome, calls, counted, growth) else 1)


@contextmanager
def serving(environment: Mapping[str, str] | None = None) -> Iterator[tuple[psutil.Process, str, str]]:
    """Run a server process on free loopback ports; gives the process, its gRPC address and its metrics address.

    `environment` is added to this process's environment variables. The pair is `tiny` where neither names one, because
    what is measured is the service, not the model.
    """
    address, metrics = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "monitor", "serve", "--listen", address, "--metrics-listen", metrics]
    with tempfile.TemporaryDirectory() as folder:
        usual = {"SAE_MONITOR_PAIR": "tiny"}
        told = {
            **usual,
            **os.environ,
            "SAE_MONITOR_DECISION_LOG": f"{folder}/decisions",
            **(environment or {}),
        }
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=told)
        try:
            _wait_until_serving(process, address)
            yield psutil.Process(process.pid), address, metrics
        finally:
            process.terminate()
            process.wait(timeout=60)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait_until_serving(process: subprocess.Popen[bytes], address: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if health.Check(health_pb2.HealthCheckRequest(), timeout=1).status == 1:
                    return
            except grpc.RpcError:
                time.sleep(0.2)
    raise RuntimeError(f"the server did not start (exit code {process.poll()})")


async def _drive(
    process: psutil.Process, address: str, calls: int, concurrency: int, longest: int
) -> ScoreCalls:
    outcome, numbers = ScoreCalls(), iter(range(calls))
    async with grpc.aio.insecure_channel(address) as channel:
        stub = monitor_pb2_grpc.MonitorServiceStub(channel)

        async def one_after_the_other() -> None:
            for number in numbers:
                await _call(stub, number, longest, outcome)
                if number % max(1, calls // 100) == 0:
                    outcome.resident.append(process.memory_info().rss)

        await asyncio.gather(*(one_after_the_other() for _ in range(concurrency)))
    return outcome


async def _call(
    stub: monitor_pb2_grpc.MonitorServiceStub, number: int, longest: int, outcome: ScoreCalls
) -> None:
    chance = random.Random(number)
    text = " ".join(chance.choices(WORDS.split(), k=chance.randint(1, longest)))
    began = time.perf_counter()
    try:
        answer = await stub.Score(pb.ScoreRequest(input=pb.Input(text=text)), timeout=120)
    except grpc.aio.AioRpcError as error:
        outcome.codes[error.code().name] += 1
        return
    outcome.seconds.append(time.perf_counter() - began)
    outcome.codes["OK"] += 1
    coverage = answer.verdict.coverage
    if answer.verdict.status != pb.CHECK_STATUS_CHECKED or coverage.tokens_scored != coverage.tokens_run:
        outcome.incomplete += 1


def _counted(metrics: str) -> int:
    """Number of `Score` calls with status OK, from the server's metrics."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    wanted = [
        x
        for x in lines
        if x.startswith("sae_monitor_requests_total") and 'method="Score"' in x and '"OK"' in x
    ]
    return int(sum(float(line.rsplit(" ", 1)[1]) for line in wanted))


def _report(outcome: ScoreCalls, calls: int, counted: int, growth: float) -> bool:
    settled = outcome.resident[len(outcome.resident) // 5 :]
    grown = statistics.mean(settled[-5:]) / statistics.mean(settled[:5]) - 1
    times = sorted(outcome.seconds)
    checks = {
        f"none lost: {sum(outcome.codes.values())} of {calls} answered": sum(outcome.codes.values()) == calls,
        f"none failed: {dict(outcome.codes)}": outcome.codes["OK"] == calls,
        f"all checked: {outcome.incomplete} incomplete": outcome.incomplete == 0,
        f"the server's counter agrees: {counted}": counted == calls,
        f"memory flat after the first fifth: {grown:+.1%} to {settled[-1] / 2**20:.0f} MB": grown <= growth,
    }
    if times:
        p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
        print(f"latency p50 {p50 * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")  # noqa: T201
    for text, held in checks.items():
        print(f"{'ok  ' if held else 'FAIL'} {text}")  # noqa: T201
    return all(checks.values())


if __name__ == "__main__":
    app()
