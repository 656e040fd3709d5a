"""ScoreStream: text that another server writes, pushed piece by piece by a caller who is told how much may be shown.

A caller sends what the server was asked and then what it writes. Everything is read once, by a watch
(`monitor.rpc.watches`), as in the guard. Runs inside a call that was admitted, on the event loop.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import NamedTuple

from monitor.errors import BadRequest, TooLong, Violation
from monitor.guard.settled_text import BrokenWords
from monitor.records import FinishReason, Phase
from monitor.rpc.access.call_interceptor import Context, current_call
from monitor.rpc.watches import AnswerWatch, WatchEnding, Watches
from monitor.rpc.wire import enums, requests, responses
from monitor.rpc.wire.requests import Input, InputLimits, StreamStart
from monitor.telemetry.metrics.guard import WaitMetrics
from monitor.v1 import monitor_pb2 as pb

_AHEAD = 8
"""Messages of a caller that are taken before earlier ones were read; further ones wait in the caller's connection."""

_LAST = 1.0
"""Seconds for which a call whose last message was sent waits for its caller to have said all. Some clients lose what
they have not read where a call ends while they write."""


class StreamTimes(NamedTuple):
    """How long a stream waits, in seconds."""

    read: float
    """Longest time in which nothing of what waits is scored."""
    settle: float
    """Time after which the last word counts as complete where nothing more comes."""


class ScoreStreams:
    """The method ScoreStream of one server."""

    def __init__(self, watches: Watches, limits: InputLimits, times: StreamTimes, waits: WaitMetrics) -> None:
        self._watches, self._limits, self._times, self._waits = watches, limits, times, waits

    async def serve(self, messages: AsyncIterator[pb.ScoreStreamRequest], context: Context) -> None:
        """Serve one call. Raises what its caller is to see instead of a verdict."""
        start = requests.stream_start(await anext(messages), self._limits.messages)
        async with _arriving(messages) as arrivals:
            prompt = _PromptPieces(start, self._limits)
            while not prompt.complete:
                prompt.take(await arrivals.next(None))
            async with self._watches.open(
                prompt.asked(), seconds=self._times.read, expected=start.expected
            ) as watch:
                stream = _AnswerStream(watch, start, context, self._times.settle, self._waits)
                await stream.run(arrivals, prompt.rest)
                ending = stream.conclude()
            # Only now: the decision is in the log.
            await context.write(stream.final(ending))
            await arrivals.drained(_LAST)


class _Arrivals:
    """The messages of a caller, in batches of what has come."""

    def __init__(self, messages: AsyncIterator[pb.ScoreStreamRequest]) -> None:
        self._messages = messages
        self._waiting: asyncio.Queue[pb.ScoreStreamRequest | Exception | None] = asyncio.Queue(_AHEAD)
        self.ended = False

    async def fill(self) -> None:
        """Take messages as they come."""
        try:
            async for message in self._messages:
                await self._waiting.put(message)
        except Exception as error:  # noqa: BLE001  (raised again where the messages are read)
            await self._waiting.put(error)
        else:
            await self._waiting.put(None)

    async def next(self, seconds: float | None) -> list[pb.ScoreStreamRequest]:
        """All that wait, at least one; none where nothing came in time, or nothing more will come (`ended`)."""
        found: list[pb.ScoreStreamRequest] = []
        if self.ended:
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                self._take(await self._waiting.get(), found)
        while not (self.ended or self._waiting.empty()):
            self._take(self._waiting.get_nowait(), found)
        return found

    async def drained(self, seconds: float) -> None:
        """Return once the caller has nothing more to say, or after some time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ended:
                    await self.next(None)

    def _take(
        self, item: pb.ScoreStreamRequest | Exception | None, found: list[pb.ScoreStreamRequest]
    ) -> None:
        if isinstance(item, Exception):
            raise item
        if item is None:
            self.ended = True
        else:
            found.append(item)


@asynccontextmanager
async def _arriving(messages: AsyncIterator[pb.ScoreStreamRequest]) -> AsyncIterator[_Arrivals]:
    arrivals = _Arrivals(messages)
    filling = asyncio.create_task(arrivals.fill())
    try:
        yield arrivals
    finally:
        filling.cancel()
        await asyncio.wait([filling])


class _PromptPieces:
    """What the other server is asked, as far as it has come."""

    def __init__(self, start: StreamStart, limits: InputLimits) -> None:
        self._start, self._limits = start, limits
        self._turns: list[tuple[str, list[str]]] = []
        self._size = 0
        self.complete = start.input.content not in ("", [])
        self.rest: list[pb.ScoreStreamRequest] = []
        """Messages that came with its end and are about the answer."""

    def take(self, messages: Sequence[pb.ScoreStreamRequest]) -> None:
        """Take messages; without any, nothing more will come. Raises BadRequest."""
        self.complete = not messages
        for number, message in enumerate(messages):
            piece = requests.stream_piece(message)
            if piece is None or piece.answer:
                self.complete, self.rest = True, list(messages[number:])
                return
            self._add(piece.role, piece.text)
            if piece.settle:
                self.complete, self.rest = True, list(messages[number + 1 :])
                return

    def asked(self) -> Input:
        """The whole of it. Raises BadRequest where it holds no text."""
        if not self._turns:
            if not self._start.input.content:
                raise BadRequest(
                    Violation("begin.input", "has no content; set text or conversation, or send pieces of it")
                )
            return self._start.input
        turns = [
            {"role": role, "content": text} for role, parts in self._turns if (text := "".join(parts)).strip()
        ]
        if not turns:
            raise BadRequest(Violation("piece.text", "holds nothing but white space; send the prompt's text"))
        return replace(self._start.input, content=turns)

    def _add(self, role: str, text: str) -> None:
        self._size += len(text.encode())
        if self._size > self._limits.size:
            raise TooLong(
                Violation("piece.text", f"makes a prompt of more than {self._limits.size} bytes; send less")
            )
        if not self._turns or self._turns[-1][0] != role:
            if len(self._turns) >= self._limits.messages:
                raise BadRequest(
                    Violation("piece.role", f"begins more than {self._limits.messages} turns; send fewer")
                )
            self._turns.append((role, []))
        self._turns[-1][1].append(text)


@dataclass(slots=True)
class _Shown:
    """How much of the answer a caller may show, counted in its own text: without what was written between parts."""

    characters: int = 0
    octets: int = 0


class _AnswerStream:
    """The answer of one call."""

    def __init__(
        self,
        watch: AnswerWatch,
        start: StreamStart,
        context: Context,
        settle: float,
        waits: WaitMetrics,
    ) -> None:
        self._watch, self._start, self._context, self._settle = watch, start, context, settle
        self._waits = waits
        self._request_id = current_call().request_id
        self._part: str | None = None
        self._breaks: list[int] = []
        """Places in the watch's text of what stands between parts, which is no text of the caller's."""
        self._broken: list[int] = []
        """The same places in the caller's text."""
        self._words = BrokenWords()
        self._pending: list[str] = []
        """Text that came and may not be shown yet."""
        self._shown = _Shown()
        self._checked = 0
        self._unread = 0
        self._finish: FinishReason | None = None
        self._charged = start.expected
        watch.mode = start.holding.value

    async def run(self, arrivals: _Arrivals, first: Sequence[pb.ScoreStreamRequest]) -> None:
        """Read the prompt, then the answer as it comes, up to its end or to where a rule blocks it."""
        with self._waiting(Phase.PROMPT):
            await self._watch.prompt()
        await self._tell(always=True)
        batch = list(first)
        while not self._watch.blocked:
            for message in batch:
                self._take(message)
            over = self._finish is not None or (arrivals.ended and not batch)
            if over or not batch:
                self._watch.settle()
            self._charge()
            await self._check(everything=over)
            await self._tell()
            if over or self._watch.blocked:
                return
            batch = await arrivals.next(self._settle if self._watch.unsettled else None)

    def conclude(self) -> WatchEnding:
        """The verdict. Raises MonitoringFailed where something was not scored and a policy is closed."""
        self._waits.left_unread("score_stream", self._start.holding.value, self._unread)
        return self._watch.conclude(self._finish or FinishReason.STOP)

    def final(self, ending: WatchEnding) -> pb.ScoreStreamResponse:
        """The last message."""
        watch = self._watch
        reason = FinishReason.POLICY if watch.blocked else self._finish or FinishReason.STOP
        final = pb.StreamFinal(
            finish_reason=enums.FINISH_REASON[reason],
            verdict=responses.verdict(ending.verdict),
            digests=watch.now.said,
            refusal=ending.refusal,
            holding=enums.HOLDING[self._start.holding],
            released_unread=self._unread,
            prompt_tokens=watch.prompt_tokens,
            answer_tokens=watch.tokens,
        )
        return pb.ScoreStreamResponse(request_id=self._request_id, final=final)

    def _take(self, message: pb.ScoreStreamRequest) -> None:
        if self._finish is not None:
            raise BadRequest(Violation("event", "follows `end`; begin another call"))
        piece = requests.stream_piece(message)
        if piece is None:
            self._finish = requests.stream_end(message)
            return
        if not piece.answer:
            raise BadRequest(
                Violation("piece.role", "begins another turn; begin another call with the whole conversation")
            )
        if piece.unread:
            self._watch.unreadable()
        if piece.text:
            self._write(piece.part, piece.text)
        if piece.settle:
            self._watch.settle()

    def _write(self, part: str, text: str) -> None:
        if self._part is not None and part != self._part:
            self._watch.settle()
            self._between("\n" + self._words.before(part, text))
        self._part = part
        self._words.wrote(part, text)
        self._watch.write(text)
        self._pending.append(text)

    def _between(self, text: str) -> None:
        """Write what is no text of the caller's."""
        for _ in text:
            self._broken.append(self._watch.written - len(self._breaks))
        begin = self._watch.written
        self._breaks += range(begin, begin + len(text))
        self._watch.write(text)

    def _charge(self) -> None:
        """Charge tokens beyond those that the caller announced."""
        if (more := self._watch.tokens - self._charged) > 0:
            self._charged += more
            current_call().charged(more)

    async def _check(self, *, everything: bool) -> None:
        """Wait until what is due by now was scored."""
        watch, holding = self._watch, self._start.holding
        due = watch.tokens - self._checked >= self._start.sample_tokens
        if everything or holding.holds or (holding.samples and due):
            with self._waiting(Phase.RESPONSE):
                await watch.caught_up()
            self._checked = watch.tokens

    def _waiting(self, phase: Phase) -> AbstractContextManager[None]:
        return self._waits.waiting("score_stream", phase, lambda: self._watch.result)

    async def _tell(self, *, always: bool = False) -> None:
        """Say what fired, and how much of the answer may be shown now."""
        for found in self._watch.news():
            await self._send(detection=responses.detection(found))
        watch = self._watch
        held = watch.blocked or self._start.holding.holds
        grew = self._show(self._own(watch.allowed if held else watch.written))
        if grew or always or watch.blocked:
            shown = self._shown
            progress = pb.StreamProgress(
                characters=shown.characters, bytes=shown.octets, blocked=watch.blocked
            )
            await self._send(progress=progress)

    def _show(self, characters: int) -> bool:
        """Let the caller show so many characters of its own text; False where that is no more than before."""
        more = characters - self._shown.characters
        if more <= 0:
            return False
        text = "".join(self._pending)
        self._pending = [text[more:]] if len(text) > more else []
        self._unread += max(0, characters - max(self._shown.characters, self._own(self._watch.scored)))
        self._shown.characters = characters
        self._shown.octets += len(text[:more].encode())
        self._watch.released(self._theirs(characters), text[:more])
        return True

    def _own(self, characters: int) -> int:
        """How many of the first characters of what the watch was given are the caller's."""
        return characters - bisect_left(self._breaks, characters)

    def _theirs(self, characters: int) -> int:
        """How many characters the watch was given, up to so many of the caller's."""
        return characters + bisect_left(self._broken, characters)

    async def _send(self, **event: pb.StreamProgress | pb.Detection) -> None:
        await self._context.write(pb.ScoreStreamResponse(request_id=self._request_id, **event))  # type: ignore[arg-type]
