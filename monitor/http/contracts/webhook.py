"""The guardrail webhook of agentgateway, kgateway and Gloo AI Gateway: `POST /request` and `POST /response`.

Described in the OpenAPI file of Gloo AI Gateway's guardrail webhook. A prompt may be passed or rejected. For responses
the contract has no rejection: the content of a choice that must not go on is replaced, which is what it calls masking.
Of a stream, `/response` gets piece after piece, each without what stood before it. Its messages have no calls of tools;
where some come with them, each is scored as a text of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from starlette.routing import Route

from monitor.errors import BadRequest, Violation
from monitor.guard import openai_texts
from monitor.guard.settled_text import whole_characters
from monitor.http.calls import Exchange, HttpCalls, ending_with
from monitor.http.contracts.judgement import (
    ContractJudge,
    Judged,
    calls_of,
    turns_of,
    validation_status,
    worst,
)
from monitor.http.errors import ErrorAnswer
from monitor.rpc.wire.requests import Input

METHODS = ("WebhookRequest", "WebhookResponse")
_FORBIDDEN = 403


class GuardrailWebhook:
    """The two endpoints."""

    def __init__(self, calls: HttpCalls, judge: ContractJudge) -> None:
        self._calls, self._judge = calls, judge

    def routes(self) -> list[Route]:
        """Their paths."""
        asked, answered = METHODS
        return [
            Route("/request", self._calls.endpoint(asked, self._request, _worded), methods=["POST"]),
            Route("/response", self._calls.endpoint(answered, self._response, _worded), methods=["POST"]),
        ]

    async def _request(self, exchange: Exchange) -> None:
        messages = _objects(await self._calls.read(exchange), "messages")
        talk = openai_texts.conversation(messages, "body.messages")
        if not talk.content:
            raise BadRequest(Violation("body.messages", "hold no text; send at least one message"))
        asked = Input("body.messages", turns_of(talk), truncate=False, unread=talk.unread)
        with ending_with(exchange):
            found = await self._judge([asked, *calls_of(talk, asked)])
        last = worst(found)
        await exchange.json({"action": _rejected(last) if last.blocked else _passed(found)})

    async def _response(self, exchange: Exchange) -> None:
        choices = _objects(await self._calls.read(exchange), "choices")
        messages = [_message(choice) for choice in choices]
        inputs = [_answer(message, f"body.choices[{n}].message") for n, message in enumerate(messages)]
        with ending_with(exchange):
            found = await self._judge([given for each in inputs for given in each])
        left = iter(found)
        results = [list(islice(left, len(each))) for each in inputs]
        if not any(one.blocked for one in found):
            await exchange.json({"action": _passed(found)})
            return
        kept = [_masked(message, result) for message, result in zip(messages, results, strict=True)]
        await exchange.json({"action": {"body": {"choices": kept}, "reason": worst(found).reason}})


def _answer(message: Mapping[str, Any], path: str) -> list[Input]:
    """What a model said, and each of its calls; nothing where it said nothing."""
    read = openai_texts.message(message, path)
    said = Input(path, read.content or "[unread]", truncate=False, answer=True, unread=read.unread)
    return [*([said] if read.unread or str(read.content).strip() else []), *calls_of(read, said)]


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise BadRequest(Violation("body.choices", "lack a message; send {message: {role, content}}"))
    return message


def _masked(message: Mapping[str, Any], results: Sequence[Judged]) -> dict[str, Any]:
    role, content = str(message.get("role", "assistant")), message.get("content")
    text = whole_characters(content) if isinstance(content, str) else ""
    if results and (last := worst(results)).blocked:
        text = last.reason
    return {"message": {"role": role, "content": text}}


def _rejected(found: Judged) -> dict[str, Any]:
    return {"body": found.reason, "status_code": _FORBIDDEN, "reason": found.reason}


def _passed(found: Sequence[Judged]) -> dict[str, Any]:
    """Pass, with what was found as the reason: shadow rules and alerts are seen there."""
    fired = dict.fromkeys(d.policy for one in found for v in one.verdicts for d in v.detections)
    return {"reason": f"detected: {', '.join(fired)}"} if fired else {}


def _objects(body: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    inner = body.get("body")
    found = inner.get(name) if isinstance(inner, Mapping) else None
    if not isinstance(found, list) or not found or not all(isinstance(item, Mapping) for item in found):
        raise BadRequest(Violation(f"body.{name}", "is missing or empty; send a list of objects"))
    return found


def _worded(error: ErrorAnswer) -> ErrorAnswer:
    """Errors in the form of the contract's validation errors."""
    told = error.body["error"]
    place = str(told["param"] or "body").split(".")
    detail = [{"loc": place, "msg": told["message"], "type": told["code"]}]
    return error._replace(status=validation_status(error), body={"detail": detail})
