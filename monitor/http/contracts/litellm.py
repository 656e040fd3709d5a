"""LiteLLM's generic guardrail: `POST /beta/litellm_basic_guardrail_api`.

Described at https://docs.litellm.ai/docs/adding_provider/generic_guardrail_api. LiteLLM sends the texts of a request
before the model reads them, and those of a response before its caller does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.routing import Route

from monitor.guard import openai_texts
from monitor.guard.openai_texts import CallText
from monitor.guard.settled_text import whole_characters
from monitor.http.calls import Exchange, HttpCalls, ending_with
from monitor.http.contracts.judgement import ContractJudge, described, turns_of
from monitor.http.fields import Fields
from monitor.http.openai import verdicts
from monitor.http.openai.requests import EXTENSION, Extension, extension_in
from monitor.rpc.policies import ActivePolicies
from monitor.rpc.wire.problems import Problems
from monitor.rpc.wire.requests import LONGEST_LABEL, Input

METHOD = "LiteLlmGuardrail"
_LABELS = {
    "team": "user_api_key_team_alias",
    "key": "user_api_key_alias",
    "user": "user_api_key_user_id",
    "end_user": "user_api_key_end_user_id",
    "organisation": "user_api_key_org_id",
}
"""Labels that a request gets from what LiteLLM knows of its caller, for policies that are bound to some."""


class LiteLlmGuardrail:
    """The endpoint."""

    def __init__(self, calls: HttpCalls, judge: ContractJudge, active: ActivePolicies) -> None:
        self._calls, self._judge, self._active = calls, judge, active

    def routes(self) -> list[Route]:
        """Its path."""
        endpoint = self._calls.endpoint(METHOD, self._check)
        return [Route("/beta/litellm_basic_guardrail_api", endpoint, methods=["POST"])]

    async def _check(self, exchange: Exchange) -> None:
        inputs = read(await self._calls.read(exchange))
        with ending_with(exchange):
            found = await self._judge(inputs)
        said = [
            (asked.path, verdict)
            for asked, one in zip(inputs, found, strict=True)
            for verdict in one.verdicts
        ]
        blocked = next((one for one in found if one.blocked), None)
        content: dict[str, Any] = {"action": "NONE" if blocked is None else "BLOCKED"}
        if blocked is not None:
            content["blocked_reason"] = blocked.reason
        if said:
            digests = self._active.now.digests
            content[EXTENSION] = verdicts.extension(exchange.request_id, [v for _, v in said], digests)
            for one, (path, _) in zip(content[EXTENSION]["verdicts"], said, strict=True):
                one["text"] = path
        await exchange.json(content)


def read(body: Mapping[str, Any]) -> list[Input]:
    """The inputs in a request: the conversation where there is one, else each text. Raises BadRequest."""
    problems = Problems()
    fields = Fields(body, problems)
    answer = fields.text("input_type", "request") == "response"
    given = extension_in(fields.object("additional_provider_specific_params"))
    extension = replace(given, labels=_labels(body.get("request_data")) | dict(given.labels))
    images = fields.raw("images")
    inputs = _inputs(fields, extension, answer, len(images) if isinstance(images, list) else 0)
    if not inputs:
        fields.wrong("texts", "is empty; send at least one text")
    problems.raise_any()
    return inputs


def _inputs(fields: Fields, extension: Extension, answer: bool, images: int) -> list[Input]:
    talk = openai_texts.conversation(fields.raw("structured_messages"), "structured_messages")
    texts = [text for text in fields.raw("texts") or () if isinstance(text, str) and text.strip()]
    calls = openai_texts.called("tool_calls", fields.raw("tool_calls"))
    tools = described(fields.raw("tools"))
    inputs = []
    if talk.content and not answer:
        inputs = [extension.input("structured_messages", turns_of(talk))]
        images, texts, calls = max(images, talk.unread), [], _merged(talk.calls, calls)
    inputs += [extension.input(f"texts[{n}]", whole_characters(text)) for n, text in enumerate(texts)]
    inputs += [extension.input(call.name, call.text) for call in calls]
    inputs = [replace(given, answer=answer) for given in inputs]
    inputs += [extension.input(f"tools[{n}]", text) for n, text in enumerate(tools)]
    if images and not inputs:
        # Something was sent, and none of it can be read.
        return [replace(extension.input("images", "image"), unread=images)]
    return [replace(given, unread=images if number == 0 else 0) for number, given in enumerate(inputs)]


def _merged(calls: Sequence[CallText], others: Sequence[CallText]) -> tuple[CallText, ...]:
    """Calls, and those of the others that are not among them: LiteLLM sends the calls of a conversation twice."""
    known = {call.text for call in calls}
    return (*calls, *(call for call in others if call.text not in known))


def _labels(known: Any) -> dict[str, str]:
    if not isinstance(known, Mapping):
        return {}
    found = {label: known.get(name) for label, name in _LABELS.items()}
    return {
        label: value[:LONGEST_LABEL] for label, value in found.items() if isinstance(value, str) and value
    }
