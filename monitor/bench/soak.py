"""Everything at once for a long time: `python -m monitor.bench.soak`.

Scores, generations in one piece and in chunks, inspections, conversations that policies act on, callers who leave in
the middle, deadlines that pass, messages that are wrong, policies that are loaded again, connections that come and
go, scrapes. Holds what must hold: no call fails in a way that it should not, memory, threads and open files stay
what they were after the first quarter. Exits 1 where one does not. Memory settles for the first minutes (allocator,
caches, pools), so a run whose first quarter is shorter says how much it grew and does not judge it.
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
from monitor.policy.files.loader import policy_paths, read_folder
from monitor.rpc.assembly import bundled_policies
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc

DEADLINE = 120.0
CHANGES = 7.0
"""Seconds between two versions of the policies."""
SETTLE = 5.0
"""Seconds in which connections close after the last caller."""
EVERY = 1.0
"""Seconds between two looks at the process."""
SETTLING = 360.0
"""Seconds until a healthy server's memory is level: seen in runs of an hour."""
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]

MARKS = {True: "ok  ", False: "FAIL", None: "    "}

app = typer.Typer(add_completion=False)
Kind = Callable[[Any, random.Random], Awaitable[str]]


@dataclass
class Soak:
    """What came back, and what the process looked like."""

    outcomes: Counter[str] = field(default_factory=Counter)
    """Kind of call and how it ended."""
    wrong: Counter[str] = field(default_factory=Counter)
    resident: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    left_open: int = 0
    """Files and sockets that the server holds once all callers have gone, beyond those from before they came."""
    seconds: float = 0.0


@app.command()
def main(
    seconds: Annotated[float, typer.Option(help="Length; 3600 is the full run.")] = 120.0,
    callers: Annotated[int, typer.Option(help="Callers at once.")] = 8,
    growth: Annotated[float, typer.Option(help="Most growth of memory, as a share.")] = 0.02,
    out: Annotated[Path | None, typer.Option(help="Write the numbers here as JSON.")] = None,
) -> None:
    """Mixed traffic for a long time."""
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


def judge(soak: Soak, growth: float) -> dict[str, bool | None]:
    """What must hold, in words with the numbers, and whether it does; None where the run was too short to tell."""
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
    """After the first quarter, when caches and pools have their size."""
    quarter = max(1, len(values) // 4)
    return statistics.mean(values[quarter : quarter + max(1, quarter // 2)])


def _later(values: list[int]) -> float:
    return statistics.mean(values[-max(1, len(values) // 8) :])


async def _run(
    process: psutil.Process, address: str, metrics: str, seconds: float, callers: int, policies: Path
) -> Soak:
    soak, began = Soak(), time.perf_counter()

    def over() -> bool:
        return time.perf_counter() - began >= seconds

    async def caller(number: int) -> None:
        chance = random.Random(number)
        while not over():
            # A connection for a few dozen calls, as clients come and go.
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


async def _one(stub: Any, chance: random.Random, soak: Soak) -> None:
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
    """What the bundled policies were made to find: their own positive examples."""
    sources = read_folder(bundled_policies(), locks=False)
    return tuple(e.text for source in sources for e in source.examples if e.label is Label.POSITIVE)


def _offending(chance: random.Random) -> pb.Input:
    """Something that a policy was made for, as a text or as the user's turn."""
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
    """Prompts that policies act on: alerts, clamps, and blocks where a policy blocks."""
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
    """Begin a long stream and go away in the middle."""
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
    """Another version of a policy every few seconds: requests in flight keep the set that they began with."""
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
"""How often, what, and how it may end."""


if __name__ == "__main__":
    app()
