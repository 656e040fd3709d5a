"""Chat: a conversation goes on, under clamps if asked; each token comes with what was read of it at its release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from monitor.http.calls import Exchange, ending_with
from monitor.http.openai import requests, verdicts
from monitor.http.openai.answers import FINISH
from monitor.http.page.resources import PageResources
from monitor.http.page.tokens import STRONGEST, TokenStrip, all_features
from monitor.model.engine.requests import Released
from monitor.rpc.access import roles
from monitor.rpc.access.roles import Role
from monitor.rpc.runs import Generation


class PageChat:
    """`POST /api/chat`: a request of `/v1/chat/completions`, answered as a stream of tokens."""

    def __init__(self, resources: PageResources) -> None:
        self._resources = resources

    async def stream(self, exchange: Exchange) -> None:
        """Generate. Events: `begin`, `tokens`, `detections`, `end` and, for those who may inspect, `features`."""
        resources, parts = self._resources, self._resources.parts
        body = await resources.calls.read(exchange)
        asked = requests.chat(body, resources.model, parts.runtime.context, parts.runs.limits.messages)
        roles.check_clamps(roles.caller.get(), asked.specs[0].clamps, f"{requests.EXTENSION}.clamps")
        spec = replace(asked.specs[0], include_tokens=True)
        with ending_with(exchange):
            async with parts.runs.generation(spec, readings=True) as run:
                scores = resources.scores(run.now)
                strip = TokenStrip(scores, run.trail, parts.runtime.token_texts)
                await exchange.event(
                    {
                        "event": "begin",
                        "prompt_tokens": run.prompt_tokens,
                        "request_id": run.request_id,
                        "rules": [list(names) for names in scores.rules],
                    }
                )
                while (events := await run.released()) is not None:
                    await self._written(exchange, strip, events)
            await exchange.event(_end(run))
            await self._features(exchange, strip.ids)
            await exchange.done()

    async def _written(self, exchange: Exchange, strip: TokenStrip, events: Sequence[Released]) -> None:
        tokens = strip.take(event.tokens for event in events)
        if tokens:
            await exchange.event(
                {"event": "tokens", "tokens": tokens, "text": "".join(e.text for e in events)}
            )
        found = [detection for event in events for detection in event.detections]
        if found:
            await exchange.event({"event": "detections", "detections": verdicts.detections(found)})

    async def _features(self, exchange: Exchange, ids: Sequence[int]) -> None:
        """All features of every token, read from the same tokens without any clamp."""
        resources = self._resources
        if not resources.inspects or Role.INSPECT not in roles.caller.get().roles or not ids:
            return
        found = await inspected(resources, exchange, ids)
        await exchange.event({"event": "features", "features": all_features(found)})


def _end(run: Generation) -> dict[str, Any]:
    ending = run.ending
    return {
        "event": "end",
        "finish_reason": FINISH[ending.reason],
        "refusal": ending.refusal,
        "tokens_generated": ending.tokens_generated,
        "verdict": verdicts.verdict(ending.verdict),
        "digests": verdicts.extension(run.request_id, [ending.verdict], run.now.digests)["digests"],
    }


async def inspected(resources: PageResources, exchange: Exchange, ids: Sequence[int]) -> Sequence[Any]:
    """All features of every token; ends early where the caller leaves."""
    inspect = resources.parts.runtime.inspect
    return await resources.work(exchange, lambda gone: inspect(ids, STRONGEST, gone))
