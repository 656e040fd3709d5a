"""The guardrail webhook of agentgateway, kgateway and Gloo AI Gateway: `POST /request` and `POST /response`.

Described in the OpenAPI file of Gloo AI Gateway's guardrail webhook. A prompt may be passed or rejected. For responses
the contract has no rejection: the content of a choice that must not go on is replaced, which is what it calls masking.
Of a stream, `/response` gets piece after piece, each without what stood before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.routing import Route

from monitor.errors import BadRequest, Violation
from monitor.http.calls import Exchange, HttpCalls, ending_with
from monitor.http.contracts.judgement import ContractJudge, Judged, conversation, validation_status, whole
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
        talk = conversation(messages)
        if not talk.turns:
            raise BadRequest(Violation("body.messages", "hold no text; send at least one message"))
        asked = Input("body.messages", list(talk.turns), truncate=False, unread=talk.unread)
        with ending_with(exchange):
            (found,) = await self._judge([asked])
        await exchange.json({"action": _rejected(found) if found.blocked else _passed(found)})

    async def _response(self, exchange: Exchange) -> None:
        choices = _objects(await self._calls.read(exchange), "choices")
        messages = [_message(choice) for choice in choices]
        inputs = [_answer(message) for message in messages]
        with ending_with(exchange):
            found = iter(await self._judge([given for given in inputs if given is not None]))
        results = [None if given is None else next(found) for given in inputs]
        if not any(result is not None and result.blocked for result in results):
            passed = next((result for result in results if result is not None), None)
            await exchange.json({"action": _passed(passed)})
            return
        kept = [_masked(message, result) for message, result in zip(messages, results, strict=True)]
        reason = next(result.reason for result in results if result is not None and result.blocked)
        await exchange.json({"action": {"body": {"choices": kept}, "reason": reason}})


def _answer(message: Mapping[str, Any]) -> Input | None:
    """What a model said, or None where it said nothing."""
    talk = conversation([message])
    if not talk.turns and not talk.unread:
        return None
    text = talk.turns[0]["content"] if talk.turns else "image"
    return replace(Input("body.choices", text, truncate=False), answer=True, unread=talk.unread)


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise BadRequest(Violation("body.choices", "lack a message; send {message: {role, content}}"))
    return message


def _masked(message: Mapping[str, Any], result: Judged | None) -> dict[str, Any]:
    role, content = str(message.get("role", "assistant")), message.get("content")
    text = whole(content) if isinstance(content, str) else ""
    if result is not None and result.blocked:
        text = result.reason
    return {"message": {"role": role, "content": text}}


def _rejected(found: Judged) -> dict[str, Any]:
    return {"body": found.reason, "status_code": _FORBIDDEN, "reason": found.reason}


def _passed(found: Judged | None) -> dict[str, Any]:
    """Pass, with what was found as the reason: shadow rules and alerts are seen there."""
    fired = dict.fromkeys(d.policy for v in (found.verdicts if found else ()) for d in v.detections)
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
