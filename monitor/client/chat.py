"""A chat with any server of the OpenAI API, whose answer is scored piece by piece while it is written.

    from openai import OpenAI
    from monitor.client import ChatMonitor, connect

    with connect("127.0.0.1:50051") as client:
        chat = ChatMonitor(client, OpenAI(base_url="http://127.0.0.1:8000/v1"))
        with chat.stream([{"role": "user", "content": "Hello"}], model="m") as answer:
            for piece in answer:
                print(piece.text, end="", flush=True)
        print(answer.ending.finish_reason, answer.ending.verdict.matched)

The prompt is scored before the server is asked. Where a policy blocks, the answer ends there, with the finish reason
`content_filter`, and the server's own stream is closed. The client of the OpenAI API is the caller's; this module
imports none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from monitor.client.aio import AsyncClient
from monitor.client.client import Client
from monitor.client.messages import AskedTurns, Message, asked, written
from monitor.client.pieces import StreamOptions, TextPiece
from monitor.client.score_stream import AsyncScoreStream, ScoreStream
from monitor.v1 import monitor_pb2 as pb

_FINISH = {
    pb.FINISH_REASON_STOP: "stop",
    pb.FINISH_REASON_LENGTH: "length",
    pb.FINISH_REASON_POLICY: "content_filter",
    pb.FINISH_REASON_ERROR: "error",
}


@dataclass(frozen=True)
class ChatEnding:
    """How a monitored chat ended."""

    finish_reason: str
    """`stop`, `length`, `content_filter` where a policy blocked, or another word of the server's."""
    verdict: pb.Verdict
    refusal: str
    """What the policy that blocked wants to be shown; empty where none did or it says nothing."""
    released_unread: int
    """Characters that could be shown before they were scored."""


@dataclass(frozen=True)
class ChatAnswer:
    """A whole answer of a monitored chat."""

    text: str
    """What is said, as far as it may be shown."""
    parts: dict[str, str]
    """Other texts by what they are, such as `reasoning_content` and `tool_calls`."""
    ending: ChatEnding


class ChatMonitor:
    """Chats through a server of the OpenAI API, monitored by another one. Threads can share it."""

    def __init__(self, client: Client, upstream: Any, **options: Any) -> None:
        """`upstream` is an `openai.OpenAI`, or what has its `chat.completions.create`; `options`: `StreamOptions`."""
        self._client, self._upstream = client, upstream
        self._options: StreamOptions = options  # type: ignore[assignment]

    def stream(self, messages: Sequence[Message], **request: Any) -> ChatStream:
        """Ask, and give the answer as it may be shown; use it with `with`. `request`: what `create` takes besides.

        Raises ValueError for several answers (`n`), CallFailed where the monitor refuses, and what `create` raises.
        """
        found = _asked(messages, request)
        options = _options(self._options, request, found)
        return ChatStream(
            self._client.score_stream(found.turns, **options), self._upstream, messages, request
        )

    def create(self, messages: Sequence[Message], **request: Any) -> ChatAnswer:
        """Ask, and give the whole answer, as far as it may be shown. Raises as `stream`."""
        with self.stream(messages, **request) as answer:
            return _joined(list(answer), answer.ending)


class ChatStream:
    """An answer of a monitored chat, on its way."""

    def __init__(
        self, scores: ScoreStream, upstream: Any, messages: Sequence[Message], request: dict[str, Any]
    ) -> None:
        self._scores, self._upstream = scores, upstream
        self._messages, self._request = messages, request
        self._stream: Any = None
        self._finish = ""
        self._pieces: Iterator[TextPiece] | None = None

    def __iter__(self) -> Iterator[TextPiece]:
        if self._pieces is None:
            self._pieces = self._released()
        return self._pieces

    @property
    def ending(self) -> ChatEnding:
        """How it ended. Raises RuntimeError before that."""
        return _ending(self._scores.final, self._finish)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._scores.cancel()

    def _released(self) -> Iterator[TextPiece]:
        if not self._scores.allowed():
            for _ in self._scores:
                pass
            return
        self._stream = self._upstream.chat.completions.create(
            messages=list(self._messages), stream=True, **self._request
        )
        yield from self._scores.released(self._written())
        self._close()

    def _written(self) -> Iterator[TextPiece]:
        for chunk in self._stream:
            for choice in chunk.choices:
                yield from written(choice.delta)
                self._finish = choice.finish_reason or self._finish
        if not self._finish:
            raise ConnectionError("the server ended its answer before it was complete")

    def _close(self) -> None:
        """Have the server write no more."""
        if self._stream is not None:
            with suppress(Exception):  # it is over, however
                self._stream.close()


class AsyncChatMonitor:
    """The same for asyncio: an `AsyncClient`, and an `openai.AsyncOpenAI`."""

    def __init__(self, client: AsyncClient, upstream: Any, **options: Any) -> None:
        """`upstream` is an `openai.AsyncOpenAI`, or what has its `chat.completions.create`."""
        self._client, self._upstream = client, upstream
        self._options: StreamOptions = options  # type: ignore[assignment]

    def stream(self, messages: Sequence[Message], **request: Any) -> AsyncChatStream:
        """Ask, and give the answer as it may be shown; use it with `async with`. Raises as `ChatMonitor.stream`."""
        found = _asked(messages, request)
        options = _options(self._options, request, found)
        scores = self._client.score_stream(found.turns, **options)
        return AsyncChatStream(scores, self._upstream, messages, request)

    async def create(self, messages: Sequence[Message], **request: Any) -> ChatAnswer:
        """Ask, and give the whole answer, as far as it may be shown. Raises as `stream`."""
        async with self.stream(messages, **request) as answer:
            return _joined([piece async for piece in answer], answer.ending)


class AsyncChatStream:
    """An answer of a monitored chat, on its way."""

    def __init__(
        self, scores: AsyncScoreStream, upstream: Any, messages: Sequence[Message], request: dict[str, Any]
    ) -> None:
        self._scores, self._upstream = scores, upstream
        self._messages, self._request = messages, request
        self._stream: Any = None
        self._finish = ""
        self._pieces: AsyncIterator[TextPiece] | None = None

    def __aiter__(self) -> AsyncIterator[TextPiece]:
        if self._pieces is None:
            self._pieces = self._released()
        return self._pieces

    @property
    def ending(self) -> ChatEnding:
        """How it ended. Raises RuntimeError before that."""
        return _ending(self._scores.final, self._finish)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        self._scores.cancel()

    async def _released(self) -> AsyncIterator[TextPiece]:
        if not await self._scores.allowed():
            async for _ in self._scores:
                pass
            return
        self._stream = await self._upstream.chat.completions.create(
            messages=list(self._messages), stream=True, **self._request
        )
        async for piece in self._scores.released(self._written()):
            yield piece
        await self._close()

    async def _written(self) -> AsyncIterator[TextPiece]:
        async for chunk in self._stream:
            for choice in chunk.choices:
                for piece in written(choice.delta):
                    yield piece
                self._finish = choice.finish_reason or self._finish
        if not self._finish:
            raise ConnectionError("the server ended its answer before it was complete")

    async def _close(self) -> None:
        if self._stream is not None:
            with suppress(Exception):  # it is over, however
                await self._stream.close()


def _asked(messages: Sequence[Message], request: dict[str, Any]) -> AskedTurns:
    """What is asked. Raises ValueError for what cannot be monitored as one stream."""
    if request.get("n") not in (None, 1):
        raise ValueError("several answers (`n`) are several streams; ask for one at a time")
    if "stream" in request:
        raise ValueError("leave `stream` out: `stream(…)` gives pieces, and `create(…)` the whole answer")
    found = asked(messages, request.get("tools") or ())
    if not found.turns:
        raise ValueError("the messages hold no text; write at least one")
    return found


def _options(options: StreamOptions, request: dict[str, Any], found: AskedTurns) -> StreamOptions:
    expected = request.get("max_completion_tokens") or request.get("max_tokens") or 0
    known: StreamOptions = {"unread": found.unread, "expected_tokens": expected}
    return known | options


def _ending(final: pb.StreamFinal | None, finish: str) -> ChatEnding:
    if final is None:
        raise RuntimeError("the answer has not ended; read it to its end first")
    reason = _FINISH.get(final.finish_reason, "stop")
    # The server's own word, such as `tool_calls`, says more than that it stopped.
    said = finish if reason == "stop" and finish else reason
    return ChatEnding(said, final.verdict, final.refusal, final.released_unread)


def _joined(pieces: Sequence[TextPiece], ending: ChatEnding) -> ChatAnswer:
    parts: dict[str, str] = {}
    for piece in pieces:
        parts[piece.part] = parts.get(piece.part, "") + piece.text
    return ChatAnswer(parts.pop("", ""), parts, ending)
