"""What a guard adds to a stream: `python -m monitor.bench.guard`.

A recorded server writes the same words to everybody, behind what was asked. Streams go to it directly, then through
`sae-monitor guard` in each mode, in a process of its own, and to ScoreStream with the same pieces. Printed are the time
to the first piece and the time between pieces, p50 and p99, and what each adds to the bare server. Then many streams
run at once. The exit code is 1 where one is lost, gets another's text, or has a verdict that is not complete.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import httpx2
import typer

from monitor.client import AsyncClient
from monitor.http.guard.recorded import recorded

app = typer.Typer(add_completion=False)
MODES = ("hold", "sample", "end")
_WORDS = [
    "the",
    "garden",
    "is",
    "quiet",
    "in",
    "the",
    "morning",
    "and",
    "we",
    "water",
    "the",
    "plants",
    "with",
    "a",
    "can",
    "before",
    "it",
    "gets",
    "hot",
]
_SECONDS = 600.0


@dataclass
class Latencies:
    """What was measured of streams, in seconds."""

    first: list[float] = field(default_factory=list)
    """From the request to the first piece."""
    between: list[float] = field(default_factory=list)
    """From each piece to the next."""
    wrong: int = 0
    """Streams whose text or verdict is not what it should be."""

    def row(self, name: str, bare: Latencies | None = None) -> str:
        """A line of the report, with what is added to the bare server."""
        cells = [f"{name:<14}"]
        compared = (bare.first, bare.between) if bare is not None else ([], [])
        for mine, theirs in zip((self.first, self.between), compared, strict=True):
            for share in (0.5, 0.99):
                value = quantile(mine, share) * 1000
                added = f" (+{value - quantile(theirs, share) * 1000:.2f})" if theirs else ""
                cells.append(f"{value:8.2f}{added:<9}")
        return " ".join(cells) + (f"  WRONG: {self.wrong}" if self.wrong else "")


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies; NaN where there are none."""
    if len(values) < 2:
        return values[0] if values else float("nan")
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[round(share * 100) - 1]


def said(tokens: int) -> list[str]:
    """The pieces of an answer of so many words."""
    return [_WORDS[at % len(_WORDS)] + " " for at in range(tokens)]


def _numbered(pieces: Sequence[str]) -> Callable[[Any], Sequence[str]]:
    """The pieces of an answer, behind what was asked, so that no two streams are alike."""
    return lambda asked: [f"{asked['messages'][-1]['content']} ", *pieces]


@app.command()
def main(
    streams: Annotated[int, typer.Option(help="Streams one after the other, for each row.")] = 30,
    tokens: Annotated[int, typer.Option(help="Pieces of a stream.")] = 32,
    pause: Annotated[float, typer.Option(help="Seconds that the server takes for a piece.")] = 0.02,
    together: Annotated[int, typer.Option(help="Streams at once in the end; 0 for none.")] = 1000,
    pair: Annotated[str, typer.Option(help="Pair that watches.")] = "tiny",
) -> None:
    """Measure what each mode adds, then run many streams at once."""
    pieces = said(tokens)
    typer.echo("milliseconds    first p50           first p99           between p50         between p99")
    with recorded(_numbered(pieces), pause=pause) as (_, behind):
        bare = asyncio.run(one_by_one(behind, streams, pieces, guarded=False))
        typer.echo(bare.row("bare"))
        wrong = bare.wrong
        for mode in MODES:
            with guard(behind, mode, pair) as (door, grpc):
                found = asyncio.run(one_by_one(door, streams, pieces, guarded=True))
                typer.echo(found.row(mode, bare))
                wrong += found.wrong
                if mode == "hold":
                    pushed = asyncio.run(pushes(grpc, streams, pieces, pause))
                    typer.echo(pushed.row("ScoreStream", bare))
                    wrong += pushed.wrong
    if together:
        with (
            recorded(_numbered(pieces), pause=pause) as (_, behind),
            guard(behind, "hold", pair) as (door, _),
        ):
            begun = time.perf_counter()
            found = asyncio.run(at_once(door, together, pieces))
            seconds = time.perf_counter() - begun
            typer.echo(found.row(f"{together} at once"))
            typer.echo(f"{together * tokens / seconds:.0f} tokens a second; lost or mixed up: {found.wrong}")
            wrong += found.wrong
    sys.exit(1 if wrong else 0)


@contextmanager
def guard(behind: str, mode: str, pair: str) -> Iterator[tuple[str, str]]:
    """A guard in a process of its own: its URL and its gRPC address."""
    free = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    flags = ["--upstream", behind, "--guard-mode", mode, "--pair", pair, "--log-format", "json"]
    wide = ["--max-concurrent-calls", "4096", "--max-connections", "8192", "--max-streams", "4096"]
    command = [sys.executable, "-m", "monitor", "guard", *free, *flags, *wide, "--decision-log", "off"]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            yield _addresses(process, log)
        finally:
            process.terminate()
            process.wait(timeout=60)


def _addresses(process: subprocess.Popen[bytes], log: Any, seconds: float = 300.0) -> tuple[str, str]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        log.seek(0)
        text = log.read()
        http, grpc = re.search(r'"http": "(http://[^"]+)"', text), re.search(r'"grpc": "([^"]+)"', text)
        if http and grpc:
            return http[1], grpc[1]
        time.sleep(0.1)
    raise RuntimeError(f"the guard did not start (exit code {process.poll()})")


async def one_by_one(url: str, streams: int, pieces: Sequence[str], *, guarded: bool) -> Latencies:
    """Streams one after the other; the first one, which opens connections, is not counted."""
    found = Latencies()
    async with _client(1) as client:
        await _stream(client, url, 0, pieces, Latencies(), guarded=guarded)
        for number in range(streams):
            await _stream(client, url, number, pieces, found, guarded=guarded)
    return found


async def at_once(url: str, streams: int, pieces: Sequence[str]) -> Latencies:
    """Streams all at the same time."""
    found = Latencies()
    async with _client(streams) as client:
        asking = (_stream(client, url, number, pieces, found, guarded=True) for number in range(streams))
        for ended in await asyncio.gather(*asking, return_exceptions=True):
            found.wrong += isinstance(ended, BaseException)
    return found


def _client(connections: int) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(trust_env=False, timeout=_SECONDS, limits=limits)


async def _stream(
    client: httpx2.AsyncClient,
    url: str,
    number: int,
    pieces: Sequence[str],
    found: Latencies,
    *,
    guarded: bool,
) -> None:
    """One stream, measured and compared with what the server wrote."""
    asked = f"Good morning number {number}"
    body = {"model": "recorded", "stream": True, "messages": [{"role": "user", "content": asked}]}
    text, last, events = "", time.perf_counter(), 0
    content: dict[str, Any] = {}
    async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            content = json.loads(line.removeprefix("data: "))
            piece = "".join(c["delta"].get("content") or "" for c in content.get("choices", ()))
            if piece:
                now = time.perf_counter()
                (found.between if events else found.first).append(now - last)
                last, events, text = now, events + 1, text + piece
    said_of_it = content.get("sae_monitor", {})
    checked = not guarded or said_of_it.get("status") == "checked"
    found.wrong += text != "".join([f"{asked} ", *pieces]) or not checked


async def pushes(address: str, streams: int, pieces: Sequence[str], pause: float) -> Latencies:
    """The same pieces through ScoreStream."""
    found = Latencies()

    async def source() -> AsyncIterator[str]:
        for piece in pieces:
            await asyncio.sleep(pause)
            yield piece

    async with AsyncClient(address) as client:
        for _ in range(streams):
            last, events, text = time.perf_counter(), 0, ""
            async with client.score_stream([{"role": "user", "content": "Good morning"}]) as stream:
                async for piece in stream.released(source()):
                    now = time.perf_counter()
                    (found.between if events else found.first).append(now - last)
                    last, events, text = now, events + 1, text + piece.text
            found.wrong += text != "".join(pieces) or stream.final is None
    return found


if __name__ == "__main__":
    app()
