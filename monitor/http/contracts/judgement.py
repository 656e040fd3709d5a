"""What all contracts share: conversations and texts of others become inputs, and verdicts what a gateway is to do.

A part that cannot be scored, such as an image, makes a verdict UNKNOWN. A request that could not be checked is blocked
where a policy is closed, and is no error: gateways may be set to let through what fails.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from monitor.errors import BadRequest, MonitoringFailed, TooLong
from monitor.http.calls import together
from monitor.http.errors import ErrorAnswer
from monitor.http.fields import encodable
from monitor.records import Action, Mode, Phase, Status, Verdict
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.runs import Runs, Scored
from monitor.rpc.verdict import refusal
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitMetrics, WaitResult

_ROLES = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
"""Roles as chat templates call them; all others are the caller's. So is what tools return where the template knows no
tools: neither the model nor the operator wrote it."""
BLOCKED_TEXT = "the content violates a policy"
"""Why something was blocked, where the policy says nothing."""


@dataclass(frozen=True)
class Judged:
    """What came of one input."""

    scored: Scored | None
    """None where it could not be checked and a policy is closed."""

    @property
    def blocked(self) -> bool:
        """True where it must not go on."""
        return self.scored is None or self.scored.verdict.action is Action.BLOCK

    @property
    def reason(self) -> str:
        """What to show instead."""
        if self.scored is None:
            return REFUSED_TEXT
        return refusal(self.scored.now.policies.policies, self.scored.verdict) or BLOCKED_TEXT

    @property
    def verdicts(self) -> list[Verdict]:
        """Its verdict, if there is one."""
        return [] if self.scored is None else [self.scored.verdict]


class ContractJudge:
    """Scores texts for one contract."""

    def __init__(self, runs: Runs, waits: WaitMetrics, contract: str) -> None:
        """`contract` is a label of metrics."""
        self._runs, self._waits, self._contract = runs, waits, contract
        waits.serves(contract)

    async def __call__(self, inputs: Sequence[Input]) -> list[Judged]:
        """Score all inputs at once, each as a conversation where the model's chat template takes it, else as text."""
        found: list[Judged] = []
        phase = Phase.RESPONSE if any(given.answer for given in inputs) else Phase.PROMPT
        with self._waits.waiting(self._contract, phase, lambda: _result(found)):
            found += await together([partial(_judged, self._runs, given) for given in inputs])
        return found


def _result(found: Sequence[Judged]) -> WaitResult:
    if not found or unknown(found):
        return "not_scored"
    return "blocked" if any(one.blocked for one in found) else "passed"


async def _judged(runs: Runs, given: Input) -> Judged:
    try:
        return Judged(await _scored(runs, given))
    except MonitoringFailed:
        return Judged(None)


async def _scored(runs: Runs, given: Input) -> Scored:
    try:
        return await runs.score(given)
    except TooLong:
        raise
    except BadRequest:
        if isinstance(given.content, str):
            raise
        # This model's template takes other conversations; the words can be read all the same.
        return await runs.score(
            replace(given, content="\n\n".join(turn["content"] for turn in given.content))
        )


def unknown(found: Iterable[Judged]) -> bool:
    """True where a verdict is UNKNOWN, or there is none."""
    return any(j.scored is None or j.scored.verdict.status is Status.UNKNOWN for j in found)


def enforced(verdict: Verdict) -> list[Any]:
    """The detections of rules that act."""
    return [found for found in verdict.detections if found.mode is Mode.ENFORCE]


@dataclass(frozen=True)
class Conversation:
    """Messages in the form of the OpenAI API, as turns of text."""

    turns: tuple[Mapping[str, str], ...]
    unread: int
    """Parts that hold no text."""


def conversation(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Read messages leniently: what is text is read, the rest is counted.

    Calls of tools count as text of the assistant. Neighbouring messages of one role become one turn, because many chat
    templates want roles to alternate.
    """
    turns, unread = [], 0
    for message in messages:
        texts, others = _texts(message.get("content"))
        calls = message.get("tool_calls")
        texts += [_text_of(call) for call in (calls if isinstance(calls, list) else [])]
        unread += others
        if any(text.strip() for text in texts):
            turns.append((_ROLES.get(str(message.get("role")), "user"), "\n".join(texts)))
    joined = [
        {"role": role, "content": "\n\n".join(text for _, text in same)}
        for role, same in groupby(turns, key=lambda turn: turn[0])
    ]
    return Conversation(tuple(joined), unread)


def _texts(content: Any) -> tuple[list[str], int]:
    """The texts in a message's content, and the number of parts that are none."""
    if isinstance(content, str):
        return [whole(content)], 0
    parts = content if isinstance(content, list) else []
    found, others = [], 0
    for part in parts:
        text = part.get("text") or part.get("refusal") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            found.append(whole(text))
        else:
            others += 1
    return found, others


def _text_of(call: Any) -> str:
    """A call of a tool, or a tool's description, as text."""
    return whole(json.dumps(call, ensure_ascii=False))


def whole(text: str) -> str:
    """A text without half characters, which no tokenizer takes."""
    return text if encodable(text) else text.encode("utf-8", "replace").decode()


def validation_status(error: ErrorAnswer) -> int:
    """Status of an error in contracts by which a wrong request is 422, and nothing is 400."""
    return 422 if error.status == 400 else error.status


def described(things: Any) -> list[str]:
    """Descriptions or calls of tools, each as text."""
    return [_text_of(thing) for thing in things] if isinstance(things, list) else []
