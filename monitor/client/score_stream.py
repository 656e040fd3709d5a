"""A ScoreStream as programs use it: what another server writes goes in, and what may be shown comes out."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from monitor.client.errors import failure
from monitor.client.pieces import HeldText, TextPiece, asking, ending, writing
from monitor.guard.settled_text import whole_characters
from monitor.v1 import monitor_pb2 as pb

_AHEAD = 64
"""Messages that wait to be sent; whoever pushes more waits."""
_LOOK = 0.1
"""Seconds after which a push that waits looks whether the call is over."""

Reason = str | Callable[[], str]
"""Why an answer ended, or a function that says so once it has."""


class ScoreStream:
    """A call of ScoreStream. Use it with `with`.

    Either hand a whole answer to `released`, or `push` pieces, `end`, and iterate over the messages of the server.
    `push` and the iteration may run on different threads.
    """

    def __init__(self, method: Any, first: pb.ScoreStreamRequest, **options: Any) -> None:
        self._out: queue.Queue[pb.ScoreStreamRequest | None] = queue.Queue(_AHEAD)
        self._out.put(first)
        self._over = threading.Event()
        self._cancelled = False
        self._held = HeldText()
        self._lock = threading.Lock()
        self._prompt: pb.StreamProgress | None = None
        self._waiting: list[pb.ScoreStreamResponse] = []
        self.detections: list[pb.Detection] = []
        """All that were told so far."""
        self.final: pb.StreamFinal | None = None
        """How it ended; None before that."""
        self._call = method(iter(self._out.get, None), **options)

    def ask(self, role: str, text: str, *, settle: bool = False) -> None:
        """Send a piece of the prompt, where the stream began without one. `settle` with its last one."""
        self._send(asking(role, text, settle=settle))

    def push(self, piece: TextPiece | str, *, settle: bool = False) -> None:
        """Send a piece of the answer; `settle` where nothing follows for now. Ignored once the call is over."""
        found = piece if isinstance(piece, TextPiece) else TextPiece(piece)
        with self._lock:
            self._held.wrote(found._replace(text=whole_characters(found.text)))
        self._send(writing(found, settle=settle))

    def end(self, reason: str = "stop") -> None:
        """Say that the answer has ended: `stop`, `length`, or `error` where the other server broke off."""
        self._send(ending(reason))
        self._send(None)

    def __iter__(self) -> Iterator[pb.ScoreStreamResponse]:
        return self

    def __next__(self) -> pb.ScoreStreamResponse:
        if self._waiting:
            return self._waiting.pop(0)
        return self._read()

    def allowed(self) -> bool:
        """Wait until the prompt was read; False where a policy blocks it. Call it before anything is read."""
        while self._prompt is None:
            try:
                self._waiting.append(self._read())
            except StopIteration:  # it was cancelled
                return False
        return not self._prompt.blocked

    def released(self, pieces: Iterable[TextPiece | str], reason: Reason = "stop") -> Iterator[TextPiece]:
        """Send the pieces as they come, and give those that may be shown, as soon as they may; then `final` is known.

        The pieces are taken on a thread of their own, no further than to where a policy blocks. What their iterator
        raises is raised here, after all that may be shown. `reason`: that of `end`, or what tells it behind the last
        piece.
        """
        raised: list[Exception] = []

        def send() -> None:
            try:
                for piece in pieces:
                    if self._over.is_set():
                        return
                    self.push(piece)
                self.end(_told(reason))
            except Exception as error:  # noqa: BLE001  (raised again on the thread that reads)
                raised.append(error)
                self.end("error")

        sender = threading.Thread(target=send, name="score-stream", daemon=True)
        sender.start()
        for message in self:
            if message.HasField("progress"):
                with self._lock:
                    shown = self._held.shown(message.progress.characters)
                yield from shown
        self._over.set()
        if raised:
            raise raised[0]

    def cancel(self) -> None:
        """End the call. The server forgets the stream."""
        self._cancelled = True
        self._ended()
        self._call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    def _read(self) -> pb.ScoreStreamResponse:
        try:
            message: pb.ScoreStreamResponse = next(self._call)
        except StopIteration:
            self._ended()
            raise
        except grpc.RpcError as error:
            self._ended()
            # What comes behind the verdict, such as a server that stops, changes nothing of it.
            if self.final is not None or (self._cancelled and error.code() is grpc.StatusCode.CANCELLED):
                raise StopIteration from None
            raise failure(error) from error
        if message.HasField("detection"):
            self.detections.append(message.detection)
        if message.HasField("progress") and self._prompt is None:
            self._prompt = message.progress
        if message.HasField("final"):
            self.final = message.final
            self._ended()
        return message

    def _send(self, message: pb.ScoreStreamRequest | None) -> None:
        while not self._over.is_set():
            try:
                self._out.put(message, timeout=_LOOK)
            except queue.Full:
                continue
            return

    def _ended(self) -> None:
        """Let gRPC's own thread, which waits for messages, go."""
        self._over.set()
        while True:
            try:
                self._out.put_nowait(None)
            except queue.Full:
                with suppress(queue.Empty):
                    self._out.get_nowait()
            else:
                return


class AsyncScoreStream:
    """The same for asyncio. Use it with `async with`."""

    def __init__(self, method: Any, first: pb.ScoreStreamRequest, **options: Any) -> None:
        self._call = method(**options)
        self._first: pb.ScoreStreamRequest | None = first
        self._held = HeldText()
        self._writing = asyncio.Lock()
        self._over = self._cancelled = False
        self._prompt: pb.StreamProgress | None = None
        self._waiting: list[pb.ScoreStreamResponse] = []
        self.detections: list[pb.Detection] = []
        """All that were told so far."""
        self.final: pb.StreamFinal | None = None
        """How it ended; None before that."""

    async def ask(self, role: str, text: str, *, settle: bool = False) -> None:
        """Send a piece of the prompt, where the stream began without one. `settle` with its last one."""
        await self._send(asking(role, text, settle=settle))

    async def push(self, piece: TextPiece | str, *, settle: bool = False) -> None:
        """Send a piece of the answer; `settle` where nothing follows for now. Ignored once the call is over."""
        found = piece if isinstance(piece, TextPiece) else TextPiece(piece)
        self._held.wrote(found._replace(text=whole_characters(found.text)))
        await self._send(writing(found, settle=settle))

    async def end(self, reason: str = "stop") -> None:
        """Say that the answer has ended: `stop`, `length`, or `error` where the other server broke off."""
        await self._send(ending(reason))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> pb.ScoreStreamResponse:
        if self._waiting:
            return self._waiting.pop(0)
        return await self._read()

    async def allowed(self) -> bool:
        """Wait until the prompt was read; False where a policy blocks it. Call it before anything is read."""
        await self._begun()
        while self._prompt is None:
            try:
                self._waiting.append(await self._read())
            except StopAsyncIteration:  # it was cancelled
                return False
        return not self._prompt.blocked

    async def released(
        self, pieces: AsyncIterable[TextPiece | str], reason: Reason = "stop"
    ) -> AsyncGenerator[TextPiece, None]:
        """Send the pieces as they come, and give those that may be shown, as soon as they may; then `final` is known.

        The pieces are taken by a task of their own, no further than to where a policy blocks. What their iterator
        raises is raised here, after all that may be shown. `reason`: as of `ScoreStream.released`.
        """
        raised: list[Exception] = []

        async def send() -> None:
            try:
                async for piece in pieces:
                    if self._over:
                        return
                    await self.push(piece)
                await self.end(_told(reason))
            except Exception as error:  # noqa: BLE001  (raised again where the messages are read)
                raised.append(error)
                await self.end("error")

        sending = asyncio.create_task(send())
        try:
            async for message in self:
                if message.HasField("progress"):
                    for piece in self._held.shown(message.progress.characters):
                        yield piece
        finally:
            sending.cancel()
            await asyncio.wait([sending])
        if raised:
            raise raised[0]

    def cancel(self) -> None:
        """End the call. The server forgets the stream."""
        self._cancelled = self._over = True
        self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()

    async def _read(self) -> pb.ScoreStreamResponse:
        if self._first is not None:
            await self._begun()
        try:
            message = await self._call.read()
            if message is grpc.aio.EOF:
                # The status of the call: read alone ends without a word where the server refused it.
                code = await self._call.code()
                self._over = True
                if self.final is not None or (self._cancelled and code is grpc.StatusCode.CANCELLED):
                    raise StopAsyncIteration
                raise await self._failed(code)
        except grpc.RpcError as error:
            self._over = True
            if self.final is not None:
                raise StopAsyncIteration from None
            raise failure(error) from error
        except asyncio.CancelledError:
            if self._cancelled:
                raise StopAsyncIteration from None
            raise
        found: pb.ScoreStreamResponse = message
        if found.HasField("detection"):
            self.detections.append(found.detection)
        if found.HasField("progress") and self._prompt is None:
            self._prompt = found.progress
        if found.HasField("final"):
            self.final, self._over = found.final, True
            async with self._writing:
                with suppress(grpc.RpcError, asyncio.InvalidStateError):
                    await self._call.done_writing()
        return found

    async def _failed(self, code: grpc.StatusCode) -> Exception:
        details, trailing = await self._call.details(), await self._call.trailing_metadata()
        initial = await self._call.initial_metadata()
        error = grpc.aio.AioRpcError(code, initial, trailing, details)
        return failure(error)

    async def _begun(self) -> None:
        await self._send(None)

    async def _send(self, message: pb.ScoreStreamRequest | None) -> None:
        """Send a message behind the first one, one at a time: gRPC writes one at a time only."""
        async with self._writing:
            first, self._first = self._first, None
            for one in (first, message):
                if one is not None:
                    await self._write(one)

    async def _write(self, message: pb.ScoreStreamRequest) -> None:
        if self._over:
            return
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            self._over = True  # whoever reads is told why


def _told(reason: Reason) -> str:
    return reason if isinstance(reason, str) else reason()
