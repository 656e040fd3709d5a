"""All kinds of traffic at once for a long time: `python -m monitor.bench.soak`.

The traffic has scores, generations, streams, inspections, prompts that policies act on, clients that disconnect,
expired deadlines, invalid requests, policy reloads, new connections and metrics scrapes. The checks are: no call ends
in an unexpected way, and after the first quarter of the run memory, threads and open files stay the same. The exit
code is 1 where one fails. Memory grows for the first minutes (allocator, caches, pools), so a short run reports its
growth and does not judge it.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import grpc
import psutil
import typer

from monitor.bench.load import WORDS, serving
from monitor.policy.files.examples import Label
from monitor.policy.files.loader import read_folder
from monitor.policy.files.source import policy_paths
from monitor.rpc.assembly import bundled_policies
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

DEADLINE = 120.0
CHANGES = 7.0
"""Seconds between two changes of a policy file."""
SETTLE = 5.0
"""Seconds to wait for connections to close after the last call."""
EVERY = 1.0
"""Seconds between two samples of the process's memory and threads."""
SETTLING = 360.0
"""Seconds until a healthy server's memory stops growing, as measured in runs of an hour."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]

MARKS = {True: "ok  ", False: "FAIL", None: "    "}

app = typer.Typer(add_completion=False)
Kind = Callable[[Any, random.Random], Awaitable[str]]


@dataclass
class SoakResult:
    """The results of all calls, and samples of the server process."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Number of calls by kind and ending."""
    wrong: Counter[str] = field(default_factory=Counter)
    """Number of calls with an unexpected ending, likewise."""
    resident: list[int] = field(default_factory=list)
    """Samples of the server's resident memory, in bytes."""
    threads: list[int] = field(default_factory=list)
    """Samples of the server's number of threads."""
    left_open: int = 0
    """Number of files and sockets that are open after the last call and were not open before the first."""
    seconds: float = 0.0
    """Duration of the run."""


@app.command()
def main(
    seconds: Annotated[
        float, typer.Option(help="Duration of the run in seconds. A full run has 3600.")
    ] = 120.0,
    callers: Annotated[int, typer.Option(help="Number of callers at once.")] = 8,
    growth: Annotated[float, typer.Option(help="Largest growth of memory, as a share of it.")] = 0.02,
    out: Annotated[Path | None, typer.Option(help="File to write the measurements to, as JSON.")] = None,
) -> None:
    """Send all kinds of traffic for a long time and check the server."""
    with tempfile.TemporaryDirectory() as folder:
        policies = Path(folder) / "policies"
        shutil.copytree(bundled_policies(), policies)
        told = {"SAE_MONITOR_LOG_LEVEL": "error", "SAE_MONITOR_POLICIES": str(policies)}
        with serving(told) as (process, address, metrics):
            before = process.num_fds()
            soak = asyncio.run(_run(process, address, metrics, seconds, callers, policies))
            time.sleep(SETTLE)
            soak.left_open = process.num_fds() - before
    checks = judge(soak, growth)
    print(f"{sum(soak.outcomes.values())} calls in {soak.seconds:.0f} s")  # noqa: T201
    for outcome, count in sorted(soak.outcomes.items()):
        print(f"  {count:7}  {outcome}")  # noqa: T201
    for text, held in checks.items():
        print(f"{MARKS[held]} {text}")  # noqa: T201
    if out is not None:
        out.write_text(json.dumps({"checks": checks, "outcomes": soak.outcomes, "resident": soak.resident}))
    sys.exit(1 if False in checks.values() else 0)


def judge(soak: SoakResult, growth: float) -> dict[str, bool | None]:
    """The checks, each as a sentence with its numbers, and whether they hold; None where the run was too short."""
    grown = _later(soak.resident) / _settled(soak.resident) - 1
    threads = _later(soak.threads) - _settled(soak.threads)
    settled = soak.seconds / 4 >= SETTLING
    bound = f"at most {growth:.0%}" if settled else f"judged from {4 * SETTLING / 60:.0f} minutes on"
    return {
        f"no call ended as it should not: {dict(soak.wrong) or 'none'}": not soak.wrong,
        f"every kind of call was made: {len({k.split(':')[0] for k in soak.outcomes})} of {len(KINDS)}": len(
            {k.split(":")[0] for k in soak.outcomes}
        )
        == len(KINDS),
        f"memory grew by {grown:+.2%} to {soak.resident[-1] / 2**20:.0f} MiB ({bound})": grown <= growth
        if settled
        else None,
        f"threads: {threads:+.1f}": threads <= 2,
        f"files and sockets left open: {soak.left_open}": soak.left_open <= 4,
    }


def _settled(values: list[int]) -> float:
    """The mean just after the first quarter of the run, when caches and pools have reached their size."""
    quarter = max(1, len(values) // 4)
    return statistics.mean(values[quarter : quarter + max(1, quarter // 2)])


def _later(values: list[int]) -> float:
    return statistics.mean(values[-max(1, len(values) // 8) :])


async def _run(
    process: psutil.Process, address: str, metrics: str, seconds: float, callers: int, policies: Path
) -> SoakResult:
    soak, began = SoakResult(), time.perf_counter()

    def over() -> bool:
        return time.perf_counter() - began >= seconds

    async def caller(number: int) -> None:
        chance = random.Random(number)
        while not over():
            # Each connection serves a few dozen calls, so that connections are opened and closed all the time.
            async with grpc.aio.insecure_channel(address, OPTIONS) as channel:
                stub = monitor_pb2_grpc.MonitorServiceStub(channel)
                for _ in range(chance.randint(5, 60)):
                    if not over():
                        await _one(stub, chance, soak)

    async def watch() -> None:
        while not over():
            soak.resident.append(process.memory_info().rss)
            soak.threads.append(process.num_threads())
            if len(soak.resident) % 15 == 0:
                await asyncio.to_thread(_scrape, metrics)
            await asyncio.sleep(EVERY)

    await asyncio.gather(watch(), _change(policies, over), *(caller(number) for number in range(callers)))
    soak.seconds = time.perf_counter() - began
    return soak


async def _one(stub: Any, chance: random.Random, soak: SoakResult) -> None:
    name = chance.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])[0]
    _, kind, expected = KINDS[name]
    try:
        ended = await kind(stub, chance)
    except grpc.aio.AioRpcError as error:
        ended = str(error.code().name)
    soak.outcomes[f"{name}: {ended}"] += 1
    if ended not in expected:
        soak.wrong[f"{name}: {ended}"] += 1


def _scrape(metrics: str) -> None:
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=30) as page:
        page.read()


def _text(chance: random.Random, most: int = 80) -> pb.Input:
    return pb.Input(text=" ".join(chance.choices(WORDS.split(), k=chance.randint(1, most))))


def _generation(chance: random.Random, asked: pb.Input, tokens: int = 24) -> pb.Generation:
    sampling = pb.Sampling(max_new_tokens=tokens, temperature=1.0, seed=chance.randrange(2**31))
    return pb.Generation(input=asked, sampling=sampling, include_tokens=chance.random() < 0.2)


@cache
def _stated() -> tuple[str, ...]:
    """The positive examples of the bundled policies."""
    sources = read_folder(bundled_policies(), None)
    return tuple(e.text for source in sources for e in source.examples if e.label is Label.POSITIVE)


def _offending(chance: random.Random) -> pb.Input:
    """A text that some policy should match, as plain text or as a user's message."""
    text = chance.choice(_stated())
    if chance.random() < 0.5:
        return pb.Input(text=text)
    turn = pb.ChatMessage(role=pb.ROLE_USER, content=text)
    return pb.Input(conversation=pb.Conversation(messages=[turn]))


async def _score(stub: Any, chance: random.Random) -> str:
    asked = _text(chance) if chance.random() < 0.7 else _offending(chance)
    answer = await stub.Score(pb.ScoreRequest(input=asked), timeout=DEADLINE)
    return "matched" if answer.verdict.matched else "quiet"


async def _generate(stub: Any, chance: random.Random) -> str:
    asked = pb.GenerateRequest(generation=_generation(chance, _text(chance)))
    answer = await stub.Generate(asked, timeout=DEADLINE)
    return str(pb.FinishReason.Name(answer.finish_reason))


async def _act(stub: Any, chance: random.Random) -> str:
    """Generate from a prompt on which policies alert, suppress or block."""
    asked = pb.GenerateRequest(generation=_generation(chance, _offending(chance)))
    answer = await stub.Generate(asked, timeout=DEADLINE)
    return str(pb.Action.Name(answer.verdict.action))


async def _stream(stub: Any, chance: random.Random) -> str:
    last = None
    asked = pb.GenerateStreamRequest(generation=_generation(chance, _text(chance)))
    async for message in stub.GenerateStream(asked, timeout=DEADLINE):
        last = message
    return "whole" if last is not None and last.HasField("final") else "cut"


async def _leave(stub: Any, chance: random.Random) -> str:
    """Start a long stream and cancel it before its end."""
    call = stub.GenerateStream(pb.GenerateStreamRequest(generation=_generation(chance, _text(chance), 200)))
    left = chance.randint(0, 20)
    async for _ in call:
        left -= 1
        if left < 0:
            break
    call.cancel()
    return "left"


async def _hurry(stub: Any, chance: random.Random) -> str:
    asked = pb.GenerateRequest(generation=_generation(chance, _text(chance), 200))
    await stub.Generate(asked, timeout=chance.uniform(0.001, 0.3))
    return "in time"


async def _wrong(stub: Any, chance: random.Random) -> str:
    clamp = pb.Clamp(feature=2**32 - 1, target=1e6)
    asked = pb.Generation(input=_text(chance), clamps=[clamp], sampling=pb.Sampling(top_p=9))
    await stub.Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE)
    return "served"


async def _inspect(stub: Any, chance: random.Random) -> str:
    await stub.Inspect(pb.InspectRequest(input=_text(chance, 20), top_k=5), timeout=DEADLINE)
    return "inspected"


async def _list(stub: Any, chance: random.Random) -> str:
    await stub.ListPolicies(pb.ListPoliciesRequest(), timeout=DEADLINE)
    return "listed"


async def _reload(stub: Any, chance: random.Random) -> str:
    answer = await stub.ReloadPolicies(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
    return "loaded anew" if answer.changed else "unchanged"


async def _change(policies: Path, over: Callable[[], bool]) -> None:
    """Change a policy file every few seconds. Requests in flight keep the policies that they started with."""
    paths, number = policy_paths(policies), 0
    written = {path: path.read_text() for path in paths}
    while not over():
        number += 1
        path = paths[number % len(paths)]
        beside = path.with_suffix(".new")
        beside.write_text(f"{written[path]}\n# version {number}\n")
        beside.replace(path)
        await asyncio.sleep(CHANGES)


FINISHED = {"FINISH_REASON_STOP", "FINISH_REASON_LENGTH", "FINISH_REASON_POLICY"}
ACTED = {"ACTION_ALLOW", "ACTION_ALERT", "ACTION_SUPPRESS", "ACTION_BLOCK"}
KINDS: dict[str, tuple[int, Kind, set[str]]] = {
    "score": (30, _score, {"matched", "quiet"}),
    "generate": (15, _generate, FINISHED),
    "act": (12, _act, ACTED),
    "stream": (12, _stream, {"whole"}),
    "leave": (8, _leave, {"left"}),
    "hurry": (8, _hurry, {"in time", "DEADLINE_EXCEEDED"}),
    "wrong": (5, _wrong, {"INVALID_ARGUMENT"}),
    "inspect": (5, _inspect, {"inspected"}),
    "list": (4, _list, {"listed"}),
    "reload": (1, _reload, {"loaded anew", "unchanged"}),
}
"""For each kind of call: its weight in the mixture, the function, and its expected endings."""


if __name__ == "__main__":
    app()
