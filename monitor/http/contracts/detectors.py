"""The detector API of the FMS guardrails orchestrator and TrustyAI: `/api/v1/text/contents`, `/chat`, `/generation`.

Described in the orchestrator's OpenAPI file of its detectors. The header `detector-id` names a policy or a category, or
is `sae-monitor` for all of them. Only rules that act are detections. `detector_params.threshold` leaves out weaker
ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.routing import Route

from monitor.errors import BadRequest, MonitoringFailed, NotFound, Violation
from monitor.guard import openai_texts
from monitor.guard.settled_text import whole_characters
from monitor.http.calls import Exchange, HttpCalls, ending_with
from monitor.http.contracts.judgement import (
    ContractJudge,
    Judged,
    described,
    enforced,
    turns_of,
    unknown,
    validation_status,
)
from monitor.http.errors import ErrorAnswer
from monitor.http.openai.moderations import scaled
from monitor.policy.policy import Policy
from monitor.records import Detection, Failure, Phase
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.policies import ActivePolicies
from monitor.rpc.ports import ModelRuntime
from monitor.rpc.wire.requests import Input

METHODS = ("DetectContents", "DetectChat", "DetectGeneration")
ALL = "sae-monitor"
"""The detector that stands for all policies."""
_MOST = 64
"""Texts in one request."""


class Detectors:
    """The three endpoints."""

    def __init__(
        self, calls: HttpCalls, judge: ContractJudge, active: ActivePolicies, runtime: ModelRuntime
    ) -> None:
        self._calls, self._judge, self._active, self._runtime = calls, judge, active, runtime

    def routes(self) -> list[Route]:
        """Their paths."""
        paths = {"contents": self._contents, "chat": self._chat, "generation": self._generation}
        return [
            Route(f"/api/v1/text/{path}", self._calls.endpoint(name, method, _worded), methods=["POST"])
            for name, (path, method) in zip(METHODS, paths.items(), strict=True)
        ]

    async def _contents(self, exchange: Exchange) -> None:
        wanted = self._wanted(exchange)
        body = await self._calls.read(exchange)
        texts = _texts(body)
        inputs = [Input("contents", text, truncate=False) for text in texts]
        found = await self._judged(exchange, inputs)
        least = _threshold(body)
        answer = [
            [_spoken(detection) | self._span(text, detection) for detection in _chosen(one, wanted, least)]
            for text, one in zip(texts, found, strict=True)
        ]
        await exchange.json_list(answer)

    async def _chat(self, exchange: Exchange) -> None:
        wanted = self._wanted(exchange)
        body = await self._calls.read(exchange)
        inputs = _talk(body)
        found = await self._judged(exchange, inputs)
        chosen = [
            _spoken(detection, asked.path)
            for asked, one in zip(inputs, found, strict=True)
            for detection in _chosen(one, wanted, _threshold(body))
            if asked is inputs[0] or not asked.answer or detection.phase is Phase.RESPONSE
        ]
        await exchange.json_list(chosen)

    async def _generation(self, exchange: Exchange) -> None:
        wanted = self._wanted(exchange)
        body = await self._calls.read(exchange)
        prompt, said = (_text(body, name) for name in ("prompt", "generated_text"))
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": said}]
        (found,) = await self._judged(exchange, [Input("prompt", turns, truncate=False, answer=True)])
        chosen = _chosen(found, wanted, _threshold(body))
        await exchange.json_list([_spoken(d) for d in chosen if d.phase is Phase.RESPONSE])

    async def _judged(self, exchange: Exchange, inputs: Sequence[Input]) -> list[Judged]:
        with ending_with(exchange):
            found = await self._judge(inputs)
        if unknown(found):
            # An empty list would say that the text is clean.
            raise MonitoringFailed(REFUSED_TEXT, Failure.INCOMPLETE)
        return found

    def _wanted(self, exchange: Exchange) -> frozenset[str]:
        """Names of the policies that a detector stands for. Raises NotFound for a detector that is none."""
        asked = exchange.header("detector-id") or ALL
        found = frozenset(policy.name for policy in self._policies() if asked in _names(policy))
        if not found:
            names = ", ".join(sorted(policy.name for policy in self._policies()))
            raise NotFound(f"there is no such detector; name a policy ({names}), a category, or {ALL}")
        return found

    def _policies(self) -> Sequence[Policy]:
        return self._active.now.policies.policies

    def _span(self, text: str, detection: Detection) -> dict[str, Any]:
        """The characters from the first to the last token that the detection rests on."""
        places = self._runtime.placed(text)
        positions = [token.position for token in detection.evidence] or [detection.position]
        spans = [places[position] for position in positions if position < len(places)]
        start, end = min(s for s, _ in spans), max(e for _, e in spans)
        return {"start": start, "end": end, "text": text[start:end]}


def _names(policy: Policy) -> tuple[str, str, str]:
    return policy.name, policy.category, ALL


def _chosen(found: Judged, wanted: frozenset[str], least: float) -> list[Detection]:
    return [
        detection
        for verdict in found.verdicts
        for detection in enforced(verdict)
        if detection.policy in wanted and scaled(detection.score, detection.threshold) >= least
    ]


def _talk(body: Mapping[str, Any]) -> list[Input]:
    """The inputs in a request about a chat: the conversation, the calls of tools in it, and descriptions of tools.

    Calls of a last message that an assistant wrote are judged as the answer to what stands before it, each as if it
    were the whole answer. Raises BadRequest where there is no text.
    """
    messages = body.get("messages")
    messages = messages if isinstance(messages, list) else []
    talk = openai_texts.conversation(messages)
    if not talk.content:
        raise BadRequest(Violation("messages", "hold no text; send at least one message"))
    first = Input("messages", turns_of(talk), truncate=False, answer=True, unread=talk.unread)
    asked = openai_texts.conversation(messages[:-1])
    answers = isinstance(messages[-1], Mapping) and messages[-1].get("role") == "assistant"
    calls = [
        Input(
            call.name,
            [*asked.content, {"role": "assistant", "content": call.text}] if answers else call.text,
            truncate=False,
            answer=answers,
        )
        for call in talk.calls[len(asked.calls) :]
    ]
    earlier = [Input(call.name, call.text, truncate=False) for call in asked.calls]
    tools = [
        Input(f"tools[{n}]", text, truncate=False) for n, text in enumerate(described(body.get("tools")))
    ]
    return [first, *earlier, *calls, *tools]


def _spoken(found: Detection, part: str = "") -> dict[str, Any]:
    """A detection in the words of the contract. `part` says which of several texts it is about."""
    evidence = [
        {"name": "token", "value": token.text, "score": float(token.score)} for token in found.evidence
    ]
    return {
        "detection": f"{found.policy}/{found.rule}",
        "detection_type": found.category,
        "score": scaled(found.score, found.threshold),
        "evidence": evidence,
        "metadata": {
            "phase": found.phase.value,
            "action": found.action.name.lower(),
            "severity": found.severity.value,
        }
        | ({"part": part} if part else {}),
    }


def _texts(body: Mapping[str, Any]) -> list[str]:
    given = body.get("contents")
    if not isinstance(given, list) or not given or not all(isinstance(t, str) and t.strip() for t in given):
        raise BadRequest(Violation("contents", "is missing or empty; send a list of texts"))
    if len(given) > _MOST:
        raise BadRequest(Violation("contents", f"has {len(given)} texts; send at most {_MOST}"))
    return [whole_characters(text) for text in given]


def _text(body: Mapping[str, Any], name: str) -> str:
    found = body.get(name)
    if not isinstance(found, str) or not found.strip():
        raise BadRequest(Violation(name, "is missing or empty; send a text"))
    return whole_characters(found)


def _threshold(body: Mapping[str, Any]) -> float:
    given = body.get("detector_params")
    found = given.get("threshold", 0.0) if isinstance(given, Mapping) else 0.0
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= 1:
        raise BadRequest(Violation("detector_params.threshold", "write a number from 0 to 1"))
    return float(found)


def _worded(error: ErrorAnswer) -> ErrorAnswer:
    status = validation_status(error)
    return error._replace(status=status, body={"code": status, "message": error.body["error"]["message"]})
