"""One answer of the upstream server and its texts, each with a watch of its own.

What is thought and said is one text, and each call of a tool another: none is read behind another, so that none can be
hidden by what stands before it, nor in pieces between those of another.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from monitor.guard.openai_texts import AnswerText, AnswerTexts
from monitor.guard.settled_text import BrokenWords
from monitor.http.guard.log_probabilities import HeldLogProbabilities
from monitor.records import FinishReason
from monitor.rpc.watches import AnswerWatch, WatchEnding

_REASONS = {"length": FinishReason.LENGTH, "content_filter": FinishReason.POLICY}
"""Reasons for which upstream servers end a choice; all others are an end of its own."""
_MOST_TEXTS = 64
"""Of one choice. What comes beyond them is read behind the last one, and the answer does not count as checked."""


class OpenedWatch(NamedTuple):
    """A watch that has read its prompt."""

    watch: AnswerWatch
    stack: AsyncExitStack
    """Closing it has the decision logged."""


More = Callable[[int], Awaitable[Sequence[OpenedWatch]]]
"""Opens so many further watches of the same prompt."""


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
class GuardedText:
    """One text of a choice."""

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


class GuardedChoice:
    """An answer that the upstream server writes."""

    def __init__(self, opened: OpenedWatch, more: More) -> None:
        self._more = more
        self.texts = [GuardedText("", opened)]
        """In the order in which they began. The first one has the name of what comes first."""
        self._begun: dict[str, GuardedText] = {}
        self._last = self.texts[0]
        self.finish: str | None = None
        """Why the upstream server ended it; None while it goes on."""
        self.checked = 0
        """Tokens that were checked."""
        self.closed = False
        """True once nothing more of it may leave."""
        self.log_probabilities = HeldLogProbabilities()

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

    async def conclude(self, reason: FinishReason | None = None) -> WatchEnding:
        """Conclude all texts; their decisions are in the log then. The ending of the one that blocks, else the first.

        Raises MonitoringFailed where that is what a policy says.
        """
        ended = reason or _REASONS.get(self.finish or "", FinishReason.STOP)
        if self.blocked:
            ended = FinishReason.POLICY
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
            self._begun[name] = GuardedText(name, opened)
            self.texts.append(self._begun[name])

    def _write(self, found: AnswerText) -> WrittenText:
        self._last = self._begun.get(found.call, self.texts[-1])
        return self._last.write(found)
