"""Many streams at once: none is lost, and none gets what belongs to another."""

import asyncio
import json

import httpx2 as httpx

from tests.http.conftest import DEADLINE
from tests.http.guard.conftest import guarding
from tests.http.guard.upstream import streamed

STREAMS, TOKENS = 60, 32


async def asked(client: httpx.AsyncClient, url: str, number: int) -> list[dict]:
    body = {"model": "up", "stream": True, "messages": [{"role": "user", "content": f"number {number}"}]}
    async with client.stream("POST", url, json=body) as answer:
        lines = [line async for line in answer.aiter_lines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_many_streams_at_once(behind):
    def script(reply):
        number = int(reply.asked.json["messages"][0]["content"].split()[1])
        words = [f"s{number}w{at} " for at in range(TOKENS)]
        if number % 10 == 3:
            words[20] = "bomb "
        streamed(words, pause=0.001)(reply)

    behind.script = script

    async def test(url: str) -> list[list[dict]]:
        limits = httpx.Limits(max_connections=STREAMS)
        async with httpx.AsyncClient(trust_env=False, timeout=DEADLINE, limits=limits) as client:
            return await asyncio.gather(*(asked(client, url, number) for number in range(STREAMS)))

    with guarding(behind, max_concurrent_calls=2 * STREAMS) as guard:
        found = asyncio.run(test(f"{guard.addresses.http}/v1/chat/completions"))
        assert not guard.runtime.scorer.streams
    for number, events in enumerate(found):
        text = "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])
        words = [f"s{number}w{at}" for at in range(TOKENS)]
        blocked = number % 10 == 3
        assert text.split() == (words[:20] if blocked else words)
        assert events[-1]["sae_monitor"]["action"] == ("block" if blocked else "allow")
        scored = events[-1]["sae_monitor"]["verdicts"][0]["coverage"]["tokens_scored"]
        assert scored >= 24 if blocked else scored == 3 + TOKENS
