"""The methods of the OpenAI API: each reads its body, has it run, and answers whole or as a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.routing import Route

from monitor.errors import BadRequest, MonitoringFailed, NotFound, TooLong, Violation
from monitor.http.calls import Exchange, HttpCalls, ending_with, together
from monitor.http.openai import requests, verdicts
from monitor.http.openai.answers import (
    FINISH,
    Answer,
    AnswerShape,
    ChatShape,
    Choice,
    CompletionShape,
    fingerprint,
)
from monitor.http.openai.moderations import result
from monitor.model.engine.requests import Released
from monitor.records import Failure, Status, TokenSpellings, TokenTexts
from monitor.rpc.access import roles
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.policies import ActivePolicies, InForce
from monitor.rpc.runs import Runs, Scored
from monitor.rpc.wire.requests import check_in_one

Written = Callable[[int, list[Released]], Awaitable[list[Released]]]
"""Takes what was released of a choice, by its number, and gives back what of it the end of the answer needs."""


@dataclass(frozen=True)
class ServedModel:
    """What the API says of the model that runs."""

    name: str
    """Its name in requests and answers."""
    context: int
    """Longest prompt and answer together, in tokens."""
    since: int
    """When it was loaded, in seconds since 1970."""
    token_texts: TokenTexts
    token_spelling: TokenSpellings


class OpenAiApi:
    """`/v1/…` over the runs of a server."""

    def __init__(self, calls: HttpCalls, runs: Runs, active: ActivePolicies, model: ServedModel) -> None:
        self._calls, self._runs, self._active, self._model = calls, runs, active, model

    def routes(self) -> list[Route]:
        """Its paths."""
        methods = {
            "/v1/chat/completions": ("POST", "ChatCompletions", self._chat),
            "/v1/completions": ("POST", "Completions", self._completion),
            "/v1/moderations": ("POST", "Moderations", self._moderation),
            "/v1/models": ("GET", "Models", self._models),
            "/v1/models/{name:path}": ("GET", "Models", self._one_model),
        }
        return [
            Route(path, self._calls.endpoint(name, method), methods=[verb])
            for path, (verb, name, method) in methods.items()
        ]

    async def _chat(self, exchange: Exchange) -> None:
        body = await self._calls.read(exchange)
        asked = requests.chat(body, self._model.name, self._model.context, self._runs.limits.messages)
        await self._complete(exchange, asked, ChatShape())

    async def _completion(self, exchange: Exchange) -> None:
        body = await self._calls.read(exchange)
        await self._complete(exchange, requests.completion(body, self._model.name), CompletionShape())

    async def _complete(self, exchange: Exchange, asked: requests.Completion, shape: AnswerShape) -> None:
        roles.check_clamps(roles.caller.get(), asked.specs[0].clamps, f"{requests.EXTENSION}.clamps")
        now = self._active.now
        spell = None if asked.specs[0].logprobs is None else self._model.token_spelling
        answer = Answer(shape, exchange.request_id, self._model.name, fingerprint(now.digests), spell)
        with ending_with(exchange), _as_given():
            if asked.stream:
                await _Stream(self, exchange, asked, answer).run()
            else:
                await self._whole(exchange, asked, answer)

    async def _whole(self, exchange: Exchange, asked: requests.Completion, answer: Answer) -> None:
        check_in_one(asked.specs, self._model.context, "logprobs", "max_tokens")
        choices, now = await self.generate(asked, _kept)
        found = [choice.ending.verdict for choice in choices]
        content = answer.whole(choices, asked.choices_per_prompt)
        content[requests.EXTENSION] = self.said(exchange, asked, choices, now)
        await exchange.json(content, verdicts.headers(found))

    def said(
        self, exchange: Exchange, asked: requests.Completion, choices: Sequence[Choice], now: InForce
    ) -> dict[str, Any]:
        """The extension object of an answer."""
        found = [choice.ending.verdict for choice in choices]
        content = verdicts.extension(exchange.request_id, found, now.digests)
        if asked.specs[0].include_tokens:
            content["tokens"] = [
                verdicts.tokens((part.tokens for part in choice.parts), self._model.token_texts)
                for choice in choices
            ]
        return content

    async def generate(
        self,
        asked: requests.Completion,
        written: Written,
        ended: Callable[[int, Choice], Awaitable[None]] | None = None,
    ) -> tuple[list[Choice], InForce]:
        """Run all generations of a request at once; one that fails ends the others."""
        policies: list[InForce] = []

        async def one(index: int) -> Choice:
            parts: list[Released] = []
            async with self._runs.generation(asked.specs[index]) as run:
                policies.append(run.now)
                while (events := await run.released()) is not None:
                    parts += await written(index, events)
            choice = Choice(parts, run.ending, run.prompt_tokens)
            if ended is not None:
                await ended(index, choice)
            return choice

        choices = await together([partial(one, index) for index in range(len(asked.specs))])
        return choices, policies[0]

    async def _moderation(self, exchange: Exchange) -> None:
        asked = requests.moderation(await self._calls.read(exchange), self._model.name)
        with ending_with(exchange), _as_given():
            found: list[Scored] = await together([partial(self._runs.score, given) for given in asked.inputs])
        judged = [scored.verdict for scored in found]
        unknown = next((verdict for verdict in judged if verdict.status is Status.UNKNOWN), None)
        if unknown is not None:
            # A result has no word for "not checked", and `flagged: false` would say that the text is clean.
            raise MonitoringFailed(REFUSED_TEXT, unknown.failure or Failure.INCOMPLETE)
        now = found[0].now
        content = {
            "id": f"modr-{exchange.request_id}",
            "model": self._model.name,
            "results": [result(verdict, now.policies.policies) for verdict in judged],
            requests.EXTENSION: verdicts.extension(exchange.request_id, judged, now.digests),
        }
        await exchange.json(content, verdicts.headers(judged))

    async def _models(self, exchange: Exchange) -> None:
        await exchange.json({"object": "list", "data": [self._about()]})

    async def _one_model(self, exchange: Exchange) -> None:
        if exchange.path["name"] != self._model.name:
            raise NotFound(f"this server runs the model `{self._model.name}` and no other")
        await exchange.json(self._about())

    def _about(self) -> dict[str, Any]:
        now = self._active.now
        return {
            "id": self._model.name,
            "object": "model",
            "created": self._model.since,
            "owned_by": "sae-monitor",
            "max_model_len": self._model.context,
            requests.EXTENSION: {
                "digests": {
                    "model": now.digests.model,
                    "dictionary": now.digests.dictionary,
                    "policies": now.digests.policies,
                },
                "policies": sorted(policy.name for policy in now.policies.policies),
            },
        }


class _Stream:
    """An answer in chunks. Its last chunk carries the verdicts."""

    def __init__(
        self, api: OpenAiApi, exchange: Exchange, asked: requests.Completion, answer: Answer
    ) -> None:
        self._api, self._exchange, self._asked, self._answer = api, exchange, asked, answer
        self._open: set[int] = set()
        self._left = len(asked.specs)
        self._closing: dict[str, Any] = {}

    async def run(self) -> None:
        """Generate, and send everything up to the end of the stream."""
        asked, exchange = self._asked, self._exchange
        choices, now = await self._api.generate(asked, self._written, self._ended)
        said = self._api.said(exchange, asked, choices, now)
        if asked.include_usage:
            await self._send(self._closing)
            last = self._answer.counted(choices, asked.choices_per_prompt)
        else:
            last = self._closing
        await exchange.event(last | {requests.EXTENSION: said})
        await exchange.done()

    async def _written(self, index: int, events: list[Released]) -> list[Released]:
        await self._opening(index)
        text = "".join(event.text for event in events)
        found = [detection for event in events for detection in event.detections]
        told = [one for event in events for one in event.logprobs]
        kept = [Released("", event.tokens) for event in events if event.tokens is not None]
        if not (text or found or told):
            return kept
        chunk = self._answer.chunk(index, self._answer.shape.piece(text), found=told)
        if found:
            chunk[requests.EXTENSION] = {"detections": verdicts.detections(found)}
        await self._send(chunk)
        return kept

    async def _ended(self, index: int, choice: Choice) -> None:
        await self._opening(index)
        content = self._answer.shape.closing(choice.ending)
        chunk = self._answer.chunk(index, content, FINISH[choice.ending.reason])
        self._left -= 1
        if self._left:
            await self._send(chunk)
        else:
            self._closing = chunk  # the verdicts of all choices stand in the last one

    async def _opening(self, index: int) -> None:
        if index in self._open:
            return
        self._open.add(index)
        opening = self._answer.shape.opening()
        if opening is not None:
            await self._send(self._answer.chunk(index, opening))

    async def _send(self, chunk: dict[str, Any]) -> None:
        counts = {"usage": None} if self._asked.include_usage else {}
        await self._exchange.event(chunk | counts)


async def _kept(index: int, events: list[Released]) -> list[Released]:
    """A whole answer is sent at its end."""
    return events


@contextmanager
def _as_given() -> Iterator[None]:
    """Name wrong fields as this API's callers wrote them, where checks further in use names of their own."""
    try:
        yield
    except BadRequest as error:
        kind = TooLong if isinstance(error, TooLong) else BadRequest
        raise kind(*(Violation(_given(v.field), v.description) for v in error.violations)) from None


def _given(field: str) -> str:
    first, _, rest = field.partition(".")
    if rest.startswith("sampling."):
        return "max_tokens"
    if first in ("messages", "prompt", "input"):
        rest = rest.removeprefix("conversation").removeprefix(".messages").removeprefix("text")
        return first + rest
    return field
