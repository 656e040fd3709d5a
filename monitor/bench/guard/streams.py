"""Streams through a door, measured and compared with what the server behind it wrote."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from monitor.client import AsyncClient

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

    def extend(self, other: Latencies) -> None:
        """Take in what was measured of more streams."""
        self.first += other.first
        self.between += other.between
        self.wrong += other.wrong

    def row(self, name: str, bare: Latencies | None = None) -> str:
        """A line of the report, with what is added to the bare server."""
        cells = [f"{name:<20}"]
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
    """The pieces of an answer of so many words; each begins with its space, as the tokens of most models do."""
    return [" " + _WORDS[at % len(_WORDS)] for at in range(tokens)]


def numbered(pieces: Sequence[str]) -> Callable[[Any], Sequence[str]]:
    """The pieces of an answer, behind what was asked, so that no two streams are alike."""
    # LiteLLM asks for models as well, without messages.
    return lambda asked: [asked["messages"][-1]["content"] if "messages" in asked else "", *pieces]


async def one_by_one(
    url: str, streams: int, pieces: Sequence[str], *, guarded: bool, token: str = ""
) -> Latencies:
    """Streams one after the other; the first one, which opens connections, is not counted."""
    found = Latencies()
    async with _client(1, token) as client:
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


def _client(connections: int, token: str = "") -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx2.AsyncClient(trust_env=False, timeout=_SECONDS, limits=limits, headers=headers)


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
    found.wrong += text != "".join([asked, *pieces]) or not checked


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
