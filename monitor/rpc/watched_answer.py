"""One answer of another server and its texts, each with a watch of its own.

What is thought and said is one text, and each call of a tool another: none is read behind another, so that none can be
hidden by what stands before it, nor in pieces between those of another. The calls in a prompt are texts of their own as
well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from monitor.guard.openai_texts import AnswerText, AnswerTexts
from monitor.guard.settled_text import BrokenWords
from monitor.records import FinishReason
from monitor.rpc.watches import AnswerWatch, WatchEnding, Watches, watch_result
from monitor.rpc.wire.requests import Input
from monitor.telemetry.metrics.guard import WaitResult

_MOST_TEXTS = 64
"""Of one answer. What comes beyond them is read behind the last one, and the answer does not count as checked."""
_AT_ONCE = 16
"""Calls of a prompt that are read together."""


class OpenedWatch(NamedTuple):
    """A watch that has read its prompt."""

    watch: AnswerWatch
    stack: AsyncExitStack
    """Closing it has the decision logged."""


More = Callable[[int], Awaitable[Sequence[OpenedWatch]]]
"""Opens so many further watches of the same prompt."""


class RequestWatches:
    """Opens the watches of one request, each with a request id of its own. Use it as a context: it closes all."""

    def __init__(self, watches: Watches, mode: str, seconds: float) -> None:
        """`mode`: how text is held, for the decision log; `seconds`: longest time in which nothing is read."""
        self._watches, self._mode, self._seconds = watches, mode, seconds
        self._opened: list[AnswerWatch] = []
        self._upstream_request_id = ""
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> RequestWatches:
        await self._stack.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    async def open(self, asked: Input, expected: int = 0) -> OpenedWatch:
        """A watch that has read nothing yet. Raises as `Watches.open`."""
        stack = await self._stack.enter_async_context(AsyncExitStack())
        watch = await stack.enter_async_context(
            self._watches.open(asked, seconds=self._seconds, expected=expected, number=len(self._opened))
        )
        self._opened.append(watch)
        watch.mode, watch.upstream_request_id = self._mode, self._upstream_request_id
        return OpenedWatch(watch, stack)

    def answered(self, upstream_request_id: str) -> None:
        """Another server answers, and calls the request this."""
        self._upstream_request_id = upstream_request_id
        for watch in self._opened:
            watch.upstream_request_id = upstream_request_id


class CallVerdict(NamedTuple):
    """What was found in a call of a tool."""

    name: str
    ending: WatchEnding
    blocked: bool


class PromptCalls:
    """The calls of tools in a prompt. The same call again is read once."""

    def __init__(self, watches: RequestWatches, calls: Sequence[Input]) -> None:
        """The path of each input is the name of the call."""
        self._watches = watches
        texts: dict[str, Input] = {}
        for call in calls:
            texts.setdefault(str(call.content), call)
        self._calls = list(texts.values())
        self.verdicts: list[CallVerdict] = []
        self.result: WaitResult = "not_scored"
        """What became of them, as a label of metrics."""

    def __bool__(self) -> bool:
        """True where there are any."""
        return bool(self._calls)

    @property
    def blocked(self) -> bool:
        """True where a policy blocks one of them."""
        return any(found.blocked for found in self.verdicts)

    async def read(self) -> None:
        """Have all read, up to one that is blocked. Raises MonitoringFailed where that is what a policy says."""
        self.result = "passed"
        for begin in range(0, len(self._calls), _AT_ONCE):
            if self.blocked:
                return
            calls = self._calls[begin : begin + _AT_ONCE]
            opened = [await self._watches.open(call) for call in calls]
            await together([one.watch.prompt() for one in opened])
            self.result = watch_result(one.watch for one in opened)
            for call, (watch, stack) in zip(calls, opened, strict=True):
                reason = FinishReason.POLICY if watch.blocked else FinishReason.STOP
                found = CallVerdict(call.path, watch.conclude(reason), watch.blocked)
                await stack.aclose()
                self.verdicts.append(found)


@dataclass(frozen=True, slots=True)
class WrittenText:
    """Where a piece of an answer stands among all that was written to its watch."""

    place: str
    begin: int
    end: int
    text: str
    watch: AnswerWatch

    @property
    def may_leave(self) -> bool:
        """True where all of it may."""
        return self.end <= self.watch.allowed

    @property
    def allowed(self) -> int:
        """How many of its characters may leave."""
        return min(len(self.text), max(0, self.watch.allowed - self.begin))


@dataclass(slots=True, eq=False)
class WatchedText:
    """One text of an answer."""

    name: str
    """Empty for what is thought and said, else the call, such as `tool_calls[0]`."""
    opened: OpenedWatch
    place: str = ""
    """Of its last piece."""
    at: float = 0.0
    """When that came."""
    ending: WatchEnding | None = None
    words: BrokenWords = field(default_factory=BrokenWords)

    @property
    def watch(self) -> AnswerWatch:
        """What reads it."""
        return self.opened.watch

    def write(self, found: AnswerText) -> WrittenText:
        """Have a piece read."""
        if self.place and found.place != self.place:
            # What is thought and what is said, a name and its arguments do not run into each other.
            self.watch.settle()
            self.watch.write("\n" + self.words.before(found.place, found.text))
        self.place, self.at = found.place, time.monotonic()
        self.words.wrote(found.place, found.text)
        begin = self.watch.written
        self.watch.write(found.text)
        return WrittenText(found.place, begin, self.watch.written, found.text, self.watch)


class WatchedAnswer:
    """An answer that another server writes."""

    def __init__(self, opened: OpenedWatch, more: More) -> None:
        self._more = more
        self.texts = [WatchedText("", opened)]
        """In the order in which they began. The first one has the name of what comes first."""
        self._begun: dict[str, WatchedText] = {}
        self._last = self.texts[0]
        self.checked = 0
        """Tokens that were checked."""
        self.closed = False
        """True once nothing more of it may leave."""

    @property
    def watch(self) -> AnswerWatch:
        """The watch of its first text."""
        return self.texts[0].watch

    @property
    def watches(self) -> list[AnswerWatch]:
        """Those of all its texts."""
        return [text.watch for text in self.texts]

    @property
    def blocked(self) -> bool:
        """True where nothing more of it may leave, because of any of its texts."""
        return any(watch.blocked for watch in self.watches)

    @property
    def unsettled(self) -> bool:
        """True where the end of a text may be half a word."""
        return not self.closed and any(watch.unsettled for watch in self.watches)

    @property
    def tokens(self) -> int:
        """Tokens of all its texts that were given to the model."""
        return sum(watch.tokens for watch in self.watches)

    @property
    def concluded(self) -> bool:
        """True once its verdicts are known."""
        return self.texts[0].ending is not None

    async def write(self, found: AnswerTexts) -> list[WrittenText]:
        """Have texts read; where each stands. Of a closed choice nothing is. Raises what opening a watch raises."""
        if self.closed:
            return []
        if found.unread:
            self.watch.unreadable()
        await self._begin([text.call for text in found.texts])
        return [self._write(text) for text in found.texts]

    def settle(self) -> None:
        """Take all that came for whole words."""
        for watch in () if self.closed else self.watches:
            watch.settle()

    def settle_left(self, seconds: float) -> None:
        """Take the end of a text for a whole word where others came since, for so long."""
        now = time.monotonic()
        for text in () if self.closed else self.texts:
            if text is not self._last and text.watch.unsettled and now - text.at >= seconds:
                text.watch.settle()

    async def caught_up(self) -> None:
        """Return once all of it was read that can be read."""
        await together([watch.caught_up() for watch in self.watches])
        self.checked = self.tokens

    async def conclude(self, reason: FinishReason) -> WatchEnding:
        """Conclude all texts; their decisions are in the log then. The ending of the one that blocks, else the first.

        Raises MonitoringFailed where that is what a policy says.
        """
        ended = FinishReason.POLICY if self.blocked else reason
        if self.blocked:
            for watch in self.watches:
                await watch.caught_up()  # of what it was given before another one blocked
        endings = []
        for text in self.texts:
            text.ending = text.watch.conclude(ended)
            endings.append(text.ending)
            await text.opened.stack.aclose()
        blocking = (e for e, watch in zip(endings, self.watches, strict=True) if watch.blocked)
        return next(blocking, endings[0])

    async def _begin(self, names: Sequence[str]) -> None:
        """Have a watch for each of these texts."""
        new = [name for name in dict.fromkeys(names) if name not in self._begun]
        if new and not self._begun:
            self.texts[0].name = new[0]
            self._begun[new.pop(0)] = self.texts[0]
        if not new:
            return
        if len(new) > (room := _MOST_TEXTS - len(self.texts)):
            self.watch.unreadable()
            new = new[:room]
        for name, opened in zip(new, await self._more(len(new)), strict=True):
            self._begun[name] = WatchedText(name, opened)
            self.texts.append(self._begun[name])

    def _write(self, found: AnswerText) -> WrittenText:
        self._last = self._begun.get(found.call, self.texts[-1])
        return self._last.write(found)


async def together(waits: Sequence[Awaitable[None]]) -> None:
    """Wait for all at once, so that those that hang take no longer than one of them."""
    if len(waits) == 1:
        await waits[0]
    else:
        await asyncio.gather(*waits)
