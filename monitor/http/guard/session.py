"""One request through the guard: all of its answers, and what is said of them in the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

from monitor.http.guard.guarded_choice import GuardedChoice
from monitor.http.openai import verdicts
from monitor.records import Phase, Verdict
from monitor.rpc.watched_answer import OpenedWatch, PromptCalls, RequestWatches, WatchedText, together
from monitor.rpc.watches import AnswerWatch, Watches, watch_result
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitMetrics

UPSTREAM_EXTENSION = "sae_monitor_upstream"
"""What our own extension is renamed to where the upstream server sends one: it is not the guard's word."""


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
        calls: Sequence[Input] = (),
    ) -> None:
        """One request.

        Args:
            watches: those of the server.
            prompts: what is asked.
            mode: how answers are held.
            waits: where the time that is added is measured.
            contract: label of metrics.
            per_prompt: choices of each prompt.
            expected: tokens of each choice.
            calls: calls of tools in the prompts, which are no part of these.
        """
        self.mode, self.count = mode, per_prompt * len(prompts)
        self._waits, self._contract = waits, contract
        self._prompts, self._each, self._expected = prompts, per_prompt, expected
        self._watches = RequestWatches(watches, mode.name, mode.read_seconds)
        self.choices: dict[int, GuardedChoice] = {}
        self.calls = PromptCalls(self._watches, calls)

    async def __aenter__(self) -> GuardSession:
        await self._watches.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._watches.__aexit__(*error)

    async def begin(self) -> None:
        """Have all prompts read, and then the calls in them. Raises MonitoringFailed as `PromptCalls.read`."""
        opened = [await self._choose(number * self._each) for number in range(len(self._prompts))]
        await self._read(opened)
        if self.calls and not self.blocked:
            with self._waits.waiting(self._contract, Phase.PROMPT, lambda: self.calls.result):
                await self.calls.read()

    def answered(self, upstream_request_id: str) -> None:
        """The upstream server answers, and calls the request this."""
        self._watches.answered(upstream_request_id)

    async def choice(self, index: int) -> GuardedChoice:
        """A choice, whose prompt was read. One that nobody asked for answers the last prompt."""
        if index not in self.choices:
            await self._read([await self._choose(index)])
        return self.choices[index]

    async def _choose(self, index: int) -> AnswerWatch:
        """Begin a choice, whose prompt was not read."""
        opened = await self._open(index, self._expected)
        self.choices[index] = GuardedChoice(opened, partial(self._further, index))
        return opened.watch

    async def _further(self, index: int, count: int) -> list[OpenedWatch]:
        """Further watches for a choice, whose prompt was read."""
        # The answer's tokens were charged with its first watch.
        opened = [await self._open(index, 0) for _ in range(count)]
        await self._read([one.watch for one in opened])
        return opened

    async def _open(self, index: int, expected: int) -> OpenedWatch:
        prompt = self._prompts[min(max(index, 0) // self._each, len(self._prompts) - 1)]
        return await self._watches.open(prompt, expected)

    async def _read(self, watches: Sequence[AnswerWatch]) -> None:
        """Have the prompts of these read."""
        with self._waiting(Phase.PROMPT, watches):
            await together([watch.prompt() for watch in watches])

    async def scored(self) -> None:
        """Take all that came of the answers for whole, and wait until it was scored."""
        for choice in self.choices.values():
            choice.settle()
        await self.caught_up(list(self.choices.values()))

    async def caught_up(self, choices: Sequence[GuardedChoice]) -> None:
        """Wait until all was read of these that can be read."""
        watches = [watch for choice in choices if not choice.closed for watch in choice.watches]
        with self._waiting(Phase.RESPONSE, watches):
            await together([watch.caught_up() for watch in watches])
        for choice in choices:
            choice.checked = choice.tokens

    def _waiting(self, phase: Phase, watches: Sequence[AnswerWatch]) -> AbstractContextManager[None]:
        """Measure the time of the block, in which text of these watches waits for its score."""

        return self._waits.waiting(self._contract, phase, lambda: watch_result(watches))

    @property
    def blocked(self) -> bool:
        """True where a prompt must not go on."""
        return self.calls.blocked or any(choice.blocked for choice in self.choices.values())

    def verdicts(self) -> list[Verdict]:
        """Those of the choices that were concluded, then of their further texts, then of the calls in the prompts."""
        return [verdict for _, verdict in self._said()]

    def extension(self, request_id: str) -> Mapping[str, Any]:
        """The extension object of the answer, which says how it was held."""
        first = next(iter(self.choices.values())).watch
        said = verdicts.extension(request_id, self.verdicts(), first.now.digests)
        for content, (place, _) in zip(said["verdicts"], self._said(), strict=True):
            content.update(place)
        unread = sum(watch.left_unread for choice in self.choices.values() for watch in choice.watches)
        self._waits.left_unread(self._contract, self.mode.name, unread)
        mode = {"mode": self.mode.name, "released_unread": unread}
        return said | ({"sample_tokens": self.mode.tokens} if self.mode.name == "sample" else {}) | mode

    def _said(self) -> Iterator[tuple[Mapping[str, Any], Verdict]]:
        """Verdicts, each with what says which text it is about."""
        for index, text, verdict in self._concluded():
            place = {} if text is self.choices[index].texts[0] else {"choice": index}
            yield place | ({"text": text.name} if text.name else {}), verdict
        for call in self.calls.verdicts:
            yield {"text": call.name}, call.ending.verdict

    def _concluded(self) -> list[tuple[int, WatchedText, Verdict]]:
        """Texts with their verdicts and the places of their choices: the first of each choice, then the others."""
        every = [
            (number, index, text)
            for index in sorted(self.choices)
            for number, text in enumerate(self.choices[index].texts)
        ]
        ordered = sorted(every, key=lambda found: found[0] > 0)
        return [(index, text, text.ending.verdict) for _, index, text in ordered if text.ending is not None]
