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

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from monitor.client.aio import AsyncClient
from monitor.client.client import Client
from monitor.client.messages import Message, asked, body, written
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
    texts: tuple[pb.TextVerdict, ...] = ()
    """The verdict of each text, where there are calls of tools beside what is said, or in the messages."""


@dataclass(frozen=True)
class ChatAnswer:
    """A whole answer of a monitored chat."""

    text: str
    """What is said, as far as it may be shown."""
    parts: dict[str, str]
    """Other texts by what they are, such as `reasoning_content`, `tool_calls[0].name` and `tool_calls[0].arguments`."""
    ending: ChatEnding


class ChatMonitor:
    """Chats through a server of the OpenAI API, monitored by another one. Threads can share it."""

    def __init__(self, client: Client, upstream: Any, **options: Any) -> None:
        """`upstream` is an `openai.OpenAI`, or what has its `chat.completions.create`; `options`: `StreamOptions`."""
        self._client, self._upstream = client, upstream
        self._options: StreamOptions = options  # type: ignore[assignment]

    def stream(self, messages: Sequence[Message], **request: Any) -> ChatStream:
        """Ask, and give the answer as it may be shown; use it with `with`. `request`: what `create` takes besides.

        Raises ValueError for several answers (`n`). Reading it raises CallFailed where the monitor refuses, and what
        `create` raises.
        """
        asking = _Asking(self._upstream, messages, request)
        return ChatStream(self._client.score_stream(asking.turns, **asking.options(self._options)), asking)

    def create(self, messages: Sequence[Message], **request: Any) -> ChatAnswer:
        """Ask, and give the whole answer, as far as it may be shown. Raises as `stream`, and as reading it does."""
        with self.stream(messages, **request) as answer:
            return _joined(list(answer), answer.ending)


class ChatStream:
    """An answer of a monitored chat, on its way."""

    def __init__(self, scores: ScoreStream, asking: _Asking) -> None:
        self._scores, self._asking = scores, asking
        self._stream: Any = None
        self._pieces: Iterator[TextPiece] | None = None

    def __iter__(self) -> Iterator[TextPiece]:
        if self._pieces is None:
            self._pieces = self._released()
        return self._pieces

    @property
    def ending(self) -> ChatEnding:
        """How it ended. Raises RuntimeError before that."""
        return _ending(self._scores.final, self._asking.finish)

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
        self._stream = self._asking.create()
        yield from self._scores.released(self._written(), self._asking.reason)
        self._close()

    def _written(self) -> Iterator[TextPiece]:
        for chunk in self._stream:
            yield from self._asking.read(chunk)
        self._asking.check()

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
        asking = _Asking(self._upstream, messages, request)
        scores = self._client.score_stream(asking.turns, **asking.options(self._options))
        return AsyncChatStream(scores, asking)

    async def create(self, messages: Sequence[Message], **request: Any) -> ChatAnswer:
        """Ask, and give the whole answer, as far as it may be shown. Raises as `ChatMonitor.create`."""
        async with self.stream(messages, **request) as answer:
            return _joined([piece async for piece in answer], answer.ending)


class AsyncChatStream:
    """An answer of a monitored chat, on its way."""

    def __init__(self, scores: AsyncScoreStream, asking: _Asking) -> None:
        self._scores, self._asking = scores, asking
        self._stream: Any = None
        self._pieces: AsyncGenerator[TextPiece, None] | None = None

    def __aiter__(self) -> AsyncIterator[TextPiece]:
        if self._pieces is None:
            self._pieces = self._released()
        return self._pieces

    @property
    def ending(self) -> ChatEnding:
        """How it ended. Raises RuntimeError before that."""
        return _ending(self._scores.final, self._asking.finish)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pieces is not None:
            with suppress(RuntimeError):  # another task reads it
                await self._pieces.aclose()
        await self._close()
        self._scores.cancel()

    async def _released(self) -> AsyncGenerator[TextPiece, None]:
        if not await self._scores.allowed():
            async for _ in self._scores:
                pass
            return
        self._stream = await self._asking.create()
        async with aclosing(self._scores.released(self._written(), self._asking.reason)) as pieces:
            async for piece in pieces:
                yield piece
        await self._close()

    async def _written(self) -> AsyncIterator[TextPiece]:
        async for chunk in self._stream:
            for piece in self._asking.read(chunk):
                yield piece
        self._asking.check()

    async def _close(self) -> None:
        if self._stream is not None:
            with suppress(Exception):  # it is over, however
                await self._stream.close()


class _Asking:
    """What a server is asked, and what of its answer has come."""

    def __init__(self, upstream: Any, messages: Sequence[Message], request: dict[str, Any]) -> None:
        """Raises ValueError for what cannot be monitored as one stream."""
        self._upstream, self._messages, self._request = upstream, list(messages), request
        sent = body(self._messages, request)
        if sent.get("n") not in (None, 1):
            raise ValueError("several answers (`n`) are several streams; ask for one at a time")
        if "stream" in sent:
            raise ValueError("leave `stream` out: `stream(…)` gives pieces, and `create(…)` the whole answer")
        found = asked(sent)
        if not found.content:
            raise ValueError("the messages hold no text; write at least one")
        self.turns: Sequence[Mapping[str, str]] = found.content  # type: ignore[assignment]
        self._unread = found.unread
        self._calls = {call.name: call.text for call in found.calls}
        self._expected = sent.get("max_completion_tokens") or sent.get("max_tokens") or 0
        self.finish = ""
        """Why the server ended its answer, in its own word; empty before that."""

    def options(self, chosen: StreamOptions) -> StreamOptions:
        """Those of its ScoreStream, beside what was chosen for all chats."""
        known: StreamOptions = {"expected_tokens": self._expected, "calls": self._calls}
        return known | chosen | {"unread": self._unread + chosen.get("unread", 0)}

    def create(self) -> Any:
        """Ask the server; its stream, or what gives that to who awaits it."""
        return self._upstream.chat.completions.create(messages=self._messages, stream=True, **self._request)

    def read(self, chunk: Any) -> Iterator[TextPiece]:
        """The texts in a chunk of the answer."""
        for choice in chunk.choices or ():
            yield from written(choice.delta)
            self.finish = choice.finish_reason or self.finish

    def check(self) -> None:
        """Raise ConnectionError where the answer has no end of its own."""
        if not self.finish:
            raise ConnectionError("the server ended its answer before it was complete")

    def reason(self) -> str:
        """Why the answer ended, as the monitor calls it."""
        return "length" if self.finish == "length" else "stop"


def _ending(final: pb.StreamFinal | None, finish: str) -> ChatEnding:
    if final is None:
        raise RuntimeError("the answer has not ended; read it to its end first")
    reason = _FINISH.get(final.finish_reason, "stop")
    # The server's own word, such as `tool_calls`, says more than that it stopped.
    said = finish if reason == "stop" and finish else reason
    return ChatEnding(said, final.verdict, final.refusal, final.released_unread, tuple(final.texts))


def _joined(pieces: Sequence[TextPiece], ending: ChatEnding) -> ChatAnswer:
    parts: dict[str, str] = {}
    for piece in pieces:
        parts[piece.part] = parts.get(piece.part, "") + piece.text
    return ChatAnswer(parts.pop("", ""), parts, ending)
