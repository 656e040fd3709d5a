"""One request through the guard: a watch for each of its answers, and what is said of them in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

from monitor.guard.openai_texts import AnswerText, AnswerTexts
from monitor.http.guard.log_probabilities import HeldLogProbabilities
from monitor.http.openai import verdicts
from monitor.records import FinishReason, Phase, Verdict
from monitor.rpc.watches import AnswerWatch, WatchEnding, Watches
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitMetrics, WaitResult

UPSTREAM_EXTENSION = "sae_monitor_upstream"
"""What our own extension is renamed to where the upstream server sends one: it is not the guard's word."""
_REASONS = {"length": FinishReason.LENGTH, "content_filter": FinishReason.POLICY}
"""Reasons for which upstream servers end a choice; all others are an end of its own."""


@dataclass(frozen=True, slots=True)
class GuardMode:
    """When streamed text may leave, and how long anything waits."""

    name: str
    """`hold`, `sample` or `end`."""
    tokens: int
    """Of sample: so many may leave between two checks."""
    read_seconds: float
    """Longest time that text waits to be scored."""
    settle_seconds: float
    """Time for which the end of a stream is held back because a word may go on."""


@dataclass(frozen=True, slots=True)
class WrittenText:
    """Where a text of an answer stands among all that was written to its watch."""

    place: str
    begin: int
    end: int
    text: str


class GuardedChoice:
    """An answer that the upstream server writes, and its watch."""

    def __init__(self, watch: AnswerWatch, stack: AsyncExitStack) -> None:
        self.watch, self._stack = watch, stack
        self.finish: str | None = None
        """Why the upstream server ended it; None while it goes on."""
        self.checked = 0
        """Tokens that were checked."""
        self.closed = False
        """True once nothing more of it may leave."""
        self.watched: WatchEnding | None = None
        self.log_probabilities = HeldLogProbabilities()
        self._place = ""

    def write(self, found: AnswerTexts) -> list[WrittenText]:
        """Have texts read; where each stands."""
        if found.unread:
            self.watch.unreadable()
        return [self._part(text) for text in found.texts]

    def _part(self, text: AnswerText) -> WrittenText:
        if self._place and text.place != self._place:
            # What is thought, said and called are texts of their own.
            self.watch.settle()
            self.watch.write("\n")
        self._place = text.place
        begin = self.watch.written
        self.watch.write(text.text)
        return WrittenText(text.place, begin, self.watch.written, text.text)

    async def conclude(self, reason: FinishReason | None = None) -> WatchEnding:
        """Its verdict; its decision is in the log then. Raises MonitoringFailed where that is what a policy says."""
        ended = reason or _REASONS.get(self.finish or "", FinishReason.STOP)
        self.watched = self.watch.conclude(ended)
        await self._stack.aclose()
        return self.watched


class GuardSession:
    """All choices of one request. Use it as a context: what is not concluded by its end is logged as such."""

    def __init__(
        self,
        watches: Watches,
        prompts: Sequence[Input],
        mode: GuardMode,
        waits: WaitMetrics,
        *,
        contract: str = "guard",
        per_prompt: int,
        expected: int,
    ) -> None:
        """`contract`: label of metrics; `per_prompt`: choices of each prompt; `expected`: tokens of each choice."""
        self.mode, self.count = mode, per_prompt * len(prompts)
        self._waits, self._contract = waits, contract
        self._watches, self._prompts, self._each, self._expected = watches, prompts, per_prompt, expected
        self.choices: dict[int, GuardedChoice] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> GuardSession:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def begin(self) -> None:
        """Have all prompts read."""
        opened = [await self._open(number * self._each) for number in range(len(self._prompts))]
        await self._read(opened)

    async def choice(self, index: int) -> GuardedChoice:
        """A choice, whose prompt was read. One that nobody asked for answers the last prompt."""
        if index not in self.choices:
            await self._read([await self._open(index)])
        return self.choices[index]

    async def _open(self, index: int) -> AnswerWatch:
        prompt = self._prompts[min(max(index, 0) // self._each, len(self._prompts) - 1)]
        stack = await self._stack.enter_async_context(AsyncExitStack())
        watch = await stack.enter_async_context(
            self._watches.open(
                prompt, seconds=self.mode.read_seconds, expected=self._expected, number=len(self.choices)
            )
        )
        watch.mode = self.mode.name
        self.choices[index] = GuardedChoice(watch, stack)
        return watch

    async def _read(self, watches: Sequence[AnswerWatch]) -> None:
        """Have the prompts of these read."""
        with self._waiting(Phase.PROMPT, watches):
            await _together([watch.prompt() for watch in watches])

    async def scored(self) -> None:
        """Take all that came of the answers for whole, and wait until it was scored."""
        for choice in self.choices.values():
            choice.watch.settle()
        await self.caught_up(list(self.choices.values()))

    async def caught_up(self, choices: Sequence[GuardedChoice]) -> None:
        """Wait until all was read of these that can be read."""
        watches = [choice.watch for choice in choices]
        with self._waiting(Phase.RESPONSE, watches):
            await _together([watch.caught_up() for watch in watches])
        for choice in choices:
            choice.checked = choice.watch.tokens

    def _waiting(self, phase: Phase, watches: Sequence[AnswerWatch]) -> AbstractContextManager[None]:
        """Measure the time of the block, in which text of these watches waits for its score."""

        def result() -> WaitResult:
            found = {watch.result for watch in watches}
            return next((one for one in ("not_scored", "blocked") if one in found), "passed")

        return self._waits.waiting(self._contract, phase, result)

    @property
    def blocked(self) -> bool:
        """True where a prompt must not go on."""
        return any(choice.watch.blocked for choice in self.choices.values())

    def verdicts(self) -> list[Verdict]:
        """Those of the choices that were concluded, in order."""
        found = (self.choices[index].watched for index in sorted(self.choices))
        return [watched.verdict for watched in found if watched is not None]

    def extension(self, request_id: str) -> Mapping[str, Any]:
        """The extension object of the answer, which says how it was held."""
        first = next(iter(self.choices.values())).watch
        said = verdicts.extension(request_id, self.verdicts(), first.now.digests)
        unread = sum(choice.watch.left_unread for choice in self.choices.values())
        self._waits.left_unread(self._contract, self.mode.name, unread)
        mode = {"mode": self.mode.name, "released_unread": unread}
        return said | ({"sample_tokens": self.mode.tokens} if self.mode.name == "sample" else {}) | mode


async def _together(waits: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all at once, so that those that hang take no longer than one of them."""
    if len(waits) == 1:
        await waits[0]
    else:
        await asyncio.gather(*waits)
