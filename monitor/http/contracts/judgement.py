"""What all contracts share: texts of others are scored, and verdicts become what a gateway is to do.

Conversations are read as in the guard (`monitor.guard.openai_texts`): each call of a tool is an input of its own.

A part that cannot be scored, such as an image, makes a verdict UNKNOWN. A request that could not be checked is blocked
where a policy is closed, and is no error: gateways may be set to let through what fails.
"""

from __future__ import annotations

import json
from asyncio import Semaphore
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from monitor.errors import BadRequest, MonitoringFailed, TooLong
from monitor.guard.openai_texts import RequestText
from monitor.guard.settled_text import whole_characters
from monitor.http.calls import together
from monitor.http.errors import ErrorAnswer
from monitor.records import Action, Mode, Phase, Status, Verdict
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.runs import Runs, Scored
from monitor.rpc.verdict import refusal
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitMetrics, WaitResult

BLOCKED_TEXT = "the content violates a policy"
"""Why something was blocked, where the policy says nothing."""

_AT_ONCE = 16
"""Inputs that are scored together: a conversation with hundreds of calls of tools takes no more places in the queue."""


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
        """Score all inputs, each as a conversation where the model's chat template takes it, else as text."""
        found: list[Judged] = []
        phase = Phase.RESPONSE if any(given.answer for given in inputs) else Phase.PROMPT
        with self._waits.waiting(self._contract, phase, lambda: _result(found)):
            gate = Semaphore(_AT_ONCE)
            found += await together([partial(_judged, self._runs, given, gate) for given in inputs])
        return found


def _result(found: Sequence[Judged]) -> WaitResult:
    if not found or unknown(found):
        return "not_scored"
    return "blocked" if any(one.blocked for one in found) else "passed"


async def _judged(runs: Runs, given: Input, gate: Semaphore) -> Judged:
    async with gate:
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


def worst(found: Sequence[Judged]) -> Judged:
    """What became of texts that go on together or not at all: the one that is blocked, else the first."""
    return next((one for one in found if one.blocked), found[0])


def turns_of(read: RequestText) -> str | list[Mapping[str, str]]:
    """What was read, as the content of an input."""
    return read.content if isinstance(read.content, str) else list(read.content)


def calls_of(read: RequestText, like: Input) -> list[Input]:
    """The calls of tools in what was read: texts of their own, whose paths say where they stand."""
    return [replace(like, path=call.name, content=call.text, unread=0) for call in read.calls]


def validation_status(error: ErrorAnswer) -> int:
    """Status of an error in contracts by which a wrong request is 422, and nothing is 400."""
    return 422 if error.status == 400 else error.status


def described(things: Any) -> list[str]:
    """Descriptions of tools, each as text."""
    texts = [json.dumps(thing, ensure_ascii=False) for thing in things] if isinstance(things, list) else []
    return [whole_characters(text) for text in texts]
