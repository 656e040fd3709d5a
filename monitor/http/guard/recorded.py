"""A server of the OpenAI API without a model: it answers every chat with recorded pieces.

The guard is tried and measured in front of it, because it says what it is to say, as fast as it is to say it.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

_LARGEST = 64 << 20
"""Bytes of a request."""
_HEAD = {"id": "chatcmpl-recorded", "object": "chat.completion.chunk", "created": 0, "model": "recorded"}


Pieces = Sequence[str] | Callable[[Any], Sequence[str]]
"""What is written: the same to everybody, or made of the JSON of a request."""


class RecordedUpstream:
    """The server, on an event loop."""

    def __init__(self, pieces: Pieces, *, pause: float = 0.0) -> None:
        """`pause`: seconds before each piece of a stream."""
        self.pieces, self.pause = pieces, pause
        self.asked = 0
        """Requests that came."""
        self._open: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}

    async def start(self) -> str:
        """Listen on a free port of this machine; its URL."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listen no more, and close all connections."""
        self._server.close()
        serving = [task for task in self._open.values() if task is not None]
        for writer in self._open:
            writer.transport.abort()
        if serving:
            await asyncio.wait(serving, timeout=5)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while (body := await _request(reader)) is not None:
                self.asked += 1
                await self._answer(writer, json.loads(body or b"{}"))
                await writer.drain()
        del self._open[writer]
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, writer: asyncio.StreamWriter, asked: Any) -> None:
        pieces = self.pieces(asked) if callable(self.pieces) else self.pieces
        if not asked.get("stream"):
            message = {"role": "assistant", "content": "".join(pieces)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps(_HEAD | {"object": "chat.completion", "choices": [choice]}).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        for piece in pieces:
            if self.pause:
                await asyncio.sleep(self.pause)
            writer.write(_chunk(_event({"content": piece}, None)))
            await writer.drain()
        writer.write(_chunk(_event({}, "stop")) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")


async def _request(reader: asyncio.StreamReader) -> bytes | None:
    """The body of the next request of a connection; None where there is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    size = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            size = min(int(value), _LARGEST)
        if name.strip().lower() == b"transfer-encoding":
            return await _chunks(reader)
    return await reader.readexactly(size)


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    """A body that comes in chunks, as gateways send one whose length they do not know."""
    found = b""
    while size := min(int((await reader.readline()).partition(b";")[0], 16), _LARGEST - len(found)):
        found += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return found


def _event(delta: dict[str, str], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps(_HEAD | {"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@contextmanager
def recorded(pieces: Pieces, *, pause: float = 0.0) -> Iterator[tuple[RecordedUpstream, str]]:
    """A recorded server and its URL, on a thread of its own until the context ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="recorded-upstream", daemon=True)
    thread.start()
    found = RecordedUpstream(pieces, pause=pause)
    try:
        yield found, asyncio.run_coroutine_threadsafe(found.start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(found.stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
