"""Transcripts: a text or a conversation is read, and nothing is generated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from monitor.errors import MonitorError
from monitor.http.calls import Exchange, ending_with
from monitor.http.fields import Fields
from monitor.http.openai import verdicts
from monitor.http.page.chat import inspected
from monitor.http.page.resources import CallerLeft, Gone, PageResources
from monitor.http.page.tokens import TokenStrip, all_features, begins
from monitor.rpc.access import roles
from monitor.rpc.access.roles import Role
from monitor.rpc.wire.problems import Problems
from monitor.rpc.wire.requests import Input

MOST_TURNS = 64
"""Turns of a conversation whose beginnings are looked for; of a longer one only tokens are told apart."""
ROLES = ("system", "user", "assistant")
FORM = '{"messages": [{"role": "user", "content": "…"}]} or {"text": "…"}'


class PageTranscripts:
    """`POST /api/transcript`."""

    def __init__(self, resources: PageResources) -> None:
        self._resources = resources

    async def read(self, exchange: Exchange) -> None:
        """Score one transcript: tokens, verdict, where turns begin, and all features for those who may inspect."""
        resources, parts = self._resources, self._resources.parts
        asked = transcript(await resources.calls.read(exchange))
        with ending_with(exchange):
            found = await parts.runs.score(asked, include_tokens=True, readings=True)
            scores = resources.scores(found.now)
            strip = TokenStrip(scores, found.trail, parts.runtime.token_texts)
            tokens = strip.take([found.tokens])
            content: dict[str, Any] = {
                "request_id": exchange.request_id,
                "rules": [list(names) for names in scores.rules],
                "tokens": tokens,
                "turns": await self._turns(exchange, asked, strip.ids),
                "verdict": verdicts.verdict(found.verdict),
                "features": None,
            }
            if resources.inspects and Role.INSPECT in roles.caller.get().roles and strip.ids:
                content["features"] = all_features(await inspected(resources, exchange, strip.ids))
        await exchange.json(content)

    async def _turns(self, exchange: Exchange, asked: Input, ids: list[int]) -> list[dict[str, Any]]:
        """Each turn's role and the token at which it begins."""
        turns, runtime = asked.content, self._resources.parts.runtime
        if (
            isinstance(turns, str)
            or len(turns) > MOST_TURNS
            or (asked.truncate and len(ids) >= runtime.context)
        ):
            return []

        def work(gone: Gone) -> list[int]:
            parts = []
            for n in range(1, len(turns)):
                if gone():
                    raise CallerLeft
                parts.append(runtime.tokenise(turns[:n], truncate=True, room=0, reply=False))
            return [0, *begins(ids, parts)]

        try:
            starts = await self._resources.work(exchange, work)
        except MonitorError:
            return []  # some templates take no conversation that ends so
        return [{"role": turn["role"], "start": start} for turn, start in zip(turns, starts, strict=True)]


def transcript(body: dict[str, Any]) -> Input:
    """What is to be read. Raises BadRequest."""
    problems = Problems()
    fields = Fields(body, problems)
    text = fields.text("text")
    turns = [_turn(turn) for turn in fields.objects("messages")]
    truncate, answer = fields.boolean("truncate", True), fields.boolean("answer", True)
    if bool(text) == bool(turns):
        problems.add("body", f"write one of {FORM}")
    fields.finish()
    problems.raise_any()
    whole: Any = text or turns
    return replace(Input("transcript", whole, truncate), answer=answer and not text)


def _turn(fields: Fields) -> dict[str, str]:
    role, content = fields.text("role"), fields.text("content")
    if role not in ROLES:
        fields.wrong("role", f"write one of {', '.join(ROLES)}")
    if not content:
        fields.wrong("content", "is empty; write at least one character")
    return {"role": role, "content": content}
