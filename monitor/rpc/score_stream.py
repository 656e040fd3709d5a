"""ScoreStream: text that another server writes, pushed piece by piece by a caller who is told how much may be shown.

A caller sends what the server was asked and then what it writes. Everything is read once, by a watch
(`monitor.rpc.watches`), as in the guard. Runs inside a call that was admitted, on the event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from monitor.errors import BadRequest, TooLong, Violation
from monitor.guard.openai_texts import AnswerText, AnswerTexts
from monitor.records import FinishReason, Phase
from monitor.rpc.access.call_interceptor import Context, current_call
from monitor.rpc.watched_answer import (
    OpenedWatch,
    PromptCalls,
    RequestWatches,
    WatchedAnswer,
    WrittenText,
    together,
)
from monitor.rpc.watches import WatchEnding, Watches, watch_result
from monitor.rpc.wire import enums, requests, responses
from monitor.rpc.wire.requests import Input, InputLimits, StreamStart
from monitor.rpc.wire.responses import OfText
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
            asked = prompt.asked()
            async with RequestWatches(self._watches, start.holding.value, self._times.read) as watches:

                async def more(count: int) -> list[OpenedWatch]:
                    # The answer's tokens were charged with its first text.
                    opened = [await watches.open(asked) for _ in range(count)]
                    await together([one.watch.prompt() for one in opened])
                    return opened

                answer = WatchedAnswer(await watches.open(asked, start.expected), more)
                calls = PromptCalls(watches, start.inputs_of_calls())
                stream = _AnswerStream(answer, calls, start, context, self._times.settle, self._waits)
                await stream.run(arrivals, prompt.rest)
                ending = await stream.conclude()
            # Only now: the decisions are in the log.
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


class _PendingText:
    """The texts of an answer that came and may not be shown yet, in the order in which they came."""

    def __init__(self) -> None:
        self._pieces: deque[WrittenText] = deque()
        self._begun = 0
        """Characters of the first piece that may be shown."""
        self.characters = 0
        """All that may be shown."""
        self.octets = 0
        """The same in UTF-8."""
        self.unread = 0
        """Characters that could be shown before they were scored."""

    def add(self, pieces: Sequence[WrittenText]) -> None:
        """More has come."""
        self._pieces.extend(pieces)

    def show(self, *, scored: bool) -> bool:
        """Let the caller show all up to the first character that may not be; False where that is no more than before.

        With `scored` that is what was read and is not blocked, else all that came.
        """
        before = self.characters
        while self._pieces:
            piece = self._pieces[0]
            upto = piece.allowed if scored else len(piece.text)
            self._show(piece, upto)
            if upto < len(piece.text):
                break
            self._pieces.popleft()
            self._begun = 0
        return self.characters > before

    def _show(self, piece: WrittenText, upto: int) -> None:
        if not (text := piece.text[self._begun : upto]):
            return
        self.characters += len(text)
        self.octets += len(text.encode())
        self.unread += max(0, piece.begin + upto - max(piece.begin + self._begun, piece.watch.scored))
        self._begun = upto
        piece.watch.released(piece.begin + upto, text)


class _AnswerStream:
    """The answer of one call."""

    def __init__(
        self,
        answer: WatchedAnswer,
        calls: PromptCalls,
        start: StreamStart,
        context: Context,
        settle: float,
        waits: WaitMetrics,
    ) -> None:
        self._answer, self._calls, self._start, self._context = answer, calls, start, context
        self._settle, self._waits = settle, waits
        self._request_id = current_call().request_id
        self._pending = _PendingText()
        self._finish: FinishReason | None = None
        self._charged = start.expected

    async def run(self, arrivals: _Arrivals, first: Sequence[pb.ScoreStreamRequest]) -> None:
        """Read the prompt, then the answer as it comes, up to its end or to where a rule blocks it."""
        await self._read_prompt()
        await self._tell(always=True)
        answer, batch = self._answer, list(first)
        while not self._blocked:
            for message in batch:
                await self._take(message)
            over = self._finish is not None or (arrivals.ended and not batch)
            if over or not batch:
                answer.settle()
            answer.settle_left(self._settle)
            self._charge()
            await self._check(everything=over)
            await self._tell()
            if over or self._blocked:
                return
            batch = await arrivals.next(self._settle if answer.unsettled else None)

    async def conclude(self) -> WatchEnding:
        """How it ended, for the text that blocks or the first. Raises MonitoringFailed where a policy is closed."""
        self._waits.left_unread("score_stream", self._start.holding.value, self._pending.unread)
        ending = await self._answer.conclude(self._reason)
        blocking = (found.ending for found in self._calls.verdicts if found.blocked)
        return next(blocking, ending)

    def final(self, ending: WatchEnding) -> pb.ScoreStreamResponse:
        """The last message."""
        texts = self._texts()
        several = len(texts) > 1 or bool(texts[0].call)
        watch = self._answer.watch
        final = pb.StreamFinal(
            finish_reason=enums.FINISH_REASON[self._reason],
            verdict=responses.strictest(texts) if several else responses.verdict(ending.verdict),
            digests=watch.now.said,
            refusal=ending.refusal,
            holding=enums.HOLDING[self._start.holding],
            released_unread=self._pending.unread,
            prompt_tokens=watch.prompt_tokens,
            answer_tokens=self._answer.tokens,
            texts=[text.message for text in texts] if several else [],
        )
        return pb.ScoreStreamResponse(request_id=self._request_id, final=final)

    @property
    def _blocked(self) -> bool:
        return self._answer.blocked or self._calls.blocked

    @property
    def _reason(self) -> FinishReason:
        return FinishReason.POLICY if self._blocked else self._finish or FinishReason.STOP

    def _texts(self) -> list[OfText]:
        """The verdicts on all texts that were concluded."""
        said = [
            OfText(text.name, text.ending.verdict, prompt=False)
            for text in self._answer.texts
            if text.ending is not None
        ]
        return said + [OfText(call.name, call.ending.verdict, prompt=True) for call in self._calls.verdicts]

    async def _read_prompt(self) -> None:
        with self._waiting(Phase.PROMPT):
            await self._answer.watch.prompt()
        if self._calls and not self._answer.blocked:
            with self._waits.waiting("score_stream", Phase.PROMPT, lambda: self._calls.result):
                await self._calls.read()

    async def _take(self, message: pb.ScoreStreamRequest) -> None:
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
        texts = (AnswerText(piece.part or "content", piece.text, piece.call),) if piece.text else ()
        self._pending.add(await self._answer.write(AnswerTexts(texts, piece.unread)))
        if piece.settle:
            self._answer.settle()

    def _charge(self) -> None:
        """Charge tokens beyond those that the caller announced."""
        if (more := self._answer.tokens - self._charged) > 0:
            self._charged += more
            current_call().charged(more)

    async def _check(self, *, everything: bool) -> None:
        """Wait until what is due by now was scored."""
        answer, holding = self._answer, self._start.holding
        due = answer.tokens - answer.checked >= self._start.sample_tokens
        if everything or holding.holds or (holding.samples and due):
            with self._waiting(Phase.RESPONSE):
                await answer.caught_up()

    def _waiting(self, phase: Phase) -> AbstractContextManager[None]:
        return self._waits.waiting("score_stream", phase, lambda: watch_result(self._answer.watches))

    async def _tell(self, *, always: bool = False) -> None:
        """Say what fired, and how much of the answer may be shown now."""
        for call in self._calls.verdicts if always else ():
            for found in call.ending.verdict.detections:
                await self._send(detection=responses.detection(found, call.name))
        for number, text in enumerate(self._answer.texts):
            for found in text.watch.news():
                # Each has read the prompt, whose detections are told once.
                if found.phase is Phase.RESPONSE:
                    await self._send(detection=responses.detection(found, text.name))
                elif number == 0:
                    await self._send(detection=responses.detection(found))
        grew = self._pending.show(scored=self._blocked or self._start.holding.holds)
        if grew or always or self._blocked:
            shown = self._pending
            progress = pb.StreamProgress(
                characters=shown.characters, bytes=shown.octets, blocked=self._blocked
            )
            await self._send(progress=progress)

    async def _send(self, **event: pb.StreamProgress | pb.Detection) -> None:
        await self._context.write(pb.ScoreStreamResponse(request_id=self._request_id, **event))  # type: ignore[arg-type]
