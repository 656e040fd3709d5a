"""A stream of the upstream server on its way to the caller: every event is held until its text may leave."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from monitor.guard import openai_texts
from monitor.guard.event_stream import DONE, Event, EventReader, EventTooLong
from monitor.http.calls import Exchange
from monitor.http.errors import UpstreamError
from monitor.http.guard.guarded_choice import GuardedChoice
from monitor.http.guard.session import UPSTREAM_EXTENSION, GuardSession
from monitor.http.guard.upstream import MOST_BYTES, UpstreamAnswer, broken
from monitor.http.openai import verdicts
from monitor.http.openai.requests import EXTENSION
from monitor.records import FinishReason
from monitor.rpc.watched_answer import WrittenText


@dataclass(slots=True, eq=False)
class _HeldEvent:
    """An event that has not left."""

    content: dict[str, Any] | None
    """None for comments, of which nothing is passed on but that there was one."""
    parts: dict[int, list[WrittenText]] = field(default_factory=dict)
    """Texts in it, by choice."""

    @property
    def closes(self) -> bool:
        """True where it may be the last one: it ends a choice, or counts tokens."""
        if self.content is None:
            return False
        choices = self.content.get("choices")
        return not choices or any(choice.get("finish_reason") for choice in choices)


class GuardedStream:
    """Passes a stream on, holds it back or ends it, as the session's mode and its watches say."""

    def __init__(
        self, exchange: Exchange, session: GuardSession, upstream: UpstreamAnswer, *, chat: bool
    ) -> None:
        self._exchange, self._session, self._upstream, self._chat = exchange, session, upstream, chat
        self._mode = session.mode
        self._events: deque[_HeldEvent] = deque()
        self._last: _HeldEvent | None = None
        """Kept back, because the verdict stands in the last one."""
        self._head: dict[str, Any] = {}
        """What stands in every event."""
        self._done = False
        self._failed = False
        """True where the upstream server ends the stream with an error of its own."""

    async def run(self) -> None:
        """Pass the stream on up to its end."""
        gone: UpstreamError | None = None
        try:
            await self._pass_on()
        except UpstreamError as error:
            gone = error
        await self._session.scored()
        await self._release()
        if gone is None and not (self._ended or self._failed):
            gone = broken()
        await self._finish(gone)

    @property
    def _ended(self) -> bool:
        """True where the server says so, or every choice that began has ended: there are servers that know no `n`."""
        choices = self._session.choices.values()
        return self._done or all(choice.finish is not None or choice.closed for choice in choices)

    @property
    def _stopped(self) -> bool:
        """True where nothing of any choice may leave any more."""
        choices = self._session.choices.values()
        return len(choices) >= self._session.count and all(choice.closed for choice in choices)

    async def _pass_on(self) -> None:
        reader = EventReader(MOST_BYTES)
        async with aclosing(self._upstream.pieces()) as pieces:
            async with aclosing(self._in_time(pieces)) as chunks:
                async for chunk in chunks:
                    await self._read(reader, chunk)
                    await self._check()
                    await self._release()
                    if self._done or self._stopped:
                        return
            for event in reader.finish():
                await self._take(event)

    async def _read(self, reader: EventReader, chunk: bytes | None) -> None:
        """Take the events that a chunk completes; without one, take what waits for whole words."""
        if chunk is None:
            for choice in self._session.choices.values():
                choice.settle()
            return
        try:
            events = reader.feed(chunk)
        except EventTooLong:
            raise _unreadable() from None
        for event in events:
            await self._take(event)
        for choice in self._session.choices.values():
            choice.settle_left(self._mode.settle_seconds)

    async def _in_time(self, pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes | None, None]:
        """Chunks as they come; None where none came for a while and a word waits for its end."""
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(pieces))
                waits = any(choice.unsettled for choice in self._session.choices.values())
                await asyncio.wait([coming], timeout=self._mode.settle_seconds if waits else None)
                if not coming.done():
                    yield None
                    continue
                ready, coming = coming, None
                try:
                    yield ready.result()
                except StopAsyncIteration:
                    return
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])
                if not coming.cancelled():
                    coming.exception()  # of a stream that nobody reads any more

    async def _take(self, event: Event) -> None:
        """Have the texts of an event read, and hold it."""
        if event.data is None:
            self._events.append(_HeldEvent(None))
            return
        if event.data.strip() == DONE:
            self._done = True
            return
        try:
            content = json.loads(event.data)
        except (ValueError, RecursionError):
            content = None
        choices = (content.get("choices") or []) if isinstance(content, dict) else None
        if not (isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices)):
            raise _unreadable()
        if len({_index(choice) for choice in choices}) < len(choices):
            raise _unreadable()  # where each of them would be cut cannot be told
        held = _HeldEvent(content)
        if EXTENSION in content:
            content[UPSTREAM_EXTENSION] = content.pop(EXTENSION)
        self._head = {name: content[name] for name in ("id", "object", "created", "model") if name in content}
        self._failed = self._failed or bool(content.get("error"))
        for choice in choices:
            await self._write(held, choice)
        if (beside := openai_texts.beside(content)).texts:
            number = next(iter(held.parts), min(self._session.choices))
            held.parts.setdefault(number, []).extend(await self._session.choices[number].write(beside))
        self._events.append(held)

    async def _write(self, held: _HeldEvent, choice: dict[str, Any]) -> None:
        number = _index(choice)
        if not 0 <= number < self._session.count:
            raise _unreadable()
        mine = await self._session.choice(number)
        written = await mine.write(openai_texts.answer(choice))
        held.parts.setdefault(number, []).extend(written)
        if "logprobs" in choice:
            text, ends = "".join(part.text for part in written), choice.get("finish_reason") is not None
            choice["logprobs"] = mine.log_probabilities.take(choice["logprobs"], text, ends=ends)
        if choice.get("finish_reason") is not None:
            mine.finish = str(choice["finish_reason"])
            mine.settle()

    async def _check(self) -> None:
        """Wait until what the mode wants to be scored by now was scored."""
        if due := [choice for choice in self._session.choices.values() if self._is_due(choice)]:
            await self._session.caught_up(due)

    def _is_due(self, choice: GuardedChoice) -> bool:
        if choice.finish is not None or self._mode.name == "hold":
            return True
        return self._mode.name == "sample" and choice.tokens - choice.checked >= self._mode.tokens

    async def _release(self) -> None:
        """Send what may leave, in order, and end what a rule blocks."""
        while self._events and self._may_leave(self._events[0]):
            held = self._events.popleft()
            if self._cut(held):
                await self._send(held)
        for index, choice in self._session.choices.items():
            if choice.blocked and not choice.closed:
                choice.closed = True
                watched = await choice.conclude()
                await self._send(self._closing(index, watched.refusal))

    def _may_leave(self, held: _HeldEvent) -> bool:
        """True where all of its texts were scored, or nobody waits for that."""
        if self._mode.name != "hold":
            return True
        return all(
            self._session.choices[index].blocked or all(part.may_leave for part in parts)
            for index, parts in held.parts.items()
        )

    def _cut(self, held: _HeldEvent) -> bool:
        """Take out of an event what may not leave; False where nothing is left of it."""
        if held.content is None:
            return True
        blocked = [index for index in held.parts if self._session.choices[index].blocked]
        if blocked:
            held.content = openai_texts.without_beside(held.content)
        choices = held.content.get("choices") or []
        kept = [found for choice in choices if (found := self._allowed_of(choice, held)) is not None]
        if choices:
            held.content["choices"] = kept
        for index in blocked:
            held.parts[index] = [part for part in held.parts[index] if part.may_leave]
        return bool(kept) or not choices

    def _allowed_of(self, choice: dict[str, Any], held: _HeldEvent) -> dict[str, Any] | None:
        """What of a choice may leave; None for nothing."""
        index = _index(choice)
        mine = self._session.choices[index]
        if mine.closed:
            return None
        if not mine.blocked:
            return choice
        parts = held.parts.get(index, [])
        kept = dict(choice) | {"finish_reason": None}
        if choice.get("finish_reason") is not None:
            kept["logprobs"] = None  # those that were left, perhaps of text that does not leave
        if not all(part.may_leave for part in parts):
            said = [part for part in parts if part.place == "content"]
            kept = _shortened(choice, said[0].allowed if len(said) == 1 else 0)
        return kept if _says_something(kept) else None

    def _closing(self, index: int, refusal: str) -> _HeldEvent:
        """The event that ends a choice because of a policy."""
        said: dict[str, Any] = {"text": ""}
        if self._chat:
            said = {"delta": {"refusal": refusal} if refusal else {}}
        choice = {"index": index, **said, "logprobs": None, "finish_reason": "content_filter"}
        return _HeldEvent(self._head | {"choices": [choice]})

    async def _send(self, held: _HeldEvent) -> None:
        """Send an event, but keep back one that may be the last."""
        for parts in held.parts.values():
            _account(parts)
        self._tell_news(held)
        if held.content is None:
            await self._exchange.raw_event(b":\n\n")
            return
        before, self._last = self._last, held if held.closes else None
        if before is not None:
            await self._emit(before)
        if self._last is None:
            await self._emit(held)

    def _tell_news(self, held: _HeldEvent) -> None:
        """Detections of its choices, where they happened since the last event."""
        found = [
            detection | ({"text": text.name} if text.name else {})
            for index in held.parts
            if not (mine := self._session.choices[index]).concluded
            for text in mine.texts
            for detection in verdicts.detections(text.watch.news())
        ]
        if found and held.content is not None:
            held.content[EXTENSION] = {"detections": found}

    async def _emit(self, held: _HeldEvent) -> None:
        # Written anew, never as it came: what leaves is what was read.
        await self._exchange.event(held.content or {})

    async def _finish(self, gone: UpstreamError | None) -> None:
        """Conclude all choices, and end the stream as it ended."""
        broken = gone is not None or self._failed
        for choice in self._session.choices.values():
            if not choice.concluded:
                await choice.conclude(FinishReason.ERROR if broken and choice.finish is None else None)
        last, self._last = self._last, None
        if broken:
            if last is not None:
                await self._emit(last)
            if gone is not None:
                raise gone
            await self._exchange.piece(b"", more=False)
            return
        if last is None:
            last = _HeldEvent(self._head | {"choices": []})
        assert last.content is not None
        last.content[EXTENSION] = self._session.extension(self._exchange.request_id)
        await self._emit(last)
        await self._exchange.done()


def _account(parts: Sequence[WrittenText]) -> None:
    """Note what leaves, and what of it was not scored yet."""
    for part in parts:
        watch = part.watch
        watch.left_unread += max(0, part.end - max(part.begin, watch.scored))
        watch.released(part.end, part.text)


def _unreadable() -> UpstreamError:
    return UpstreamError(502, "the upstream server sent an event that cannot be read", "unreadable")


def _index(choice: Mapping[str, Any]) -> int:
    found = choice.get("index")
    return found if isinstance(found, int) else 0


def _shortened(choice: Mapping[str, Any], characters: int) -> dict[str, Any]:
    """A piece of a choice of which only the first characters of what is said may leave."""
    kept: dict[str, Any] = {"index": _index(choice), "finish_reason": None}
    delta, text = choice.get("delta"), choice.get("text")
    if isinstance(text, str):
        kept["text"] = text[:characters]
    if isinstance(delta, Mapping):
        content = delta.get("content")
        said = {"content": content[:characters]} if isinstance(content, str) else {}
        kept["delta"] = {name: delta[name] for name in ("role",) if name in delta} | said
    return kept


def _says_something(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta")
    return bool(choice.get("text")) or (isinstance(delta, Mapping) and any(delta.values()))
