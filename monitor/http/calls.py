"""Calls over HTTP: what happens around every method, as `rpc.access.call_interceptor` does for gRPC.

A call passes the same checks in the same order: who calls, which role that needs, how much is in progress. Only then
its body is read. It has a request id and a longest time, ends where its caller goes away, and is counted and logged.
No exception reaches a caller with its own text, unless it is of this project's tree.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from starlette.types import Message, Receive, Scope, Send

from monitor.errors import MonitorError, TooSlow
from monitor.guard.settled_text import whole_characters
from monitor.http.errors import ErrorAnswer, HttpError, answer
from monitor.http.fields import parse
from monitor.rpc.access.call_checks import CallChecks
from monitor.rpc.access.call_interceptor import Call, TimeLimits, current_call, enter, report
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.tracing import context as tracing
from monitor.telemetry.tracing.context import Tracing

T = TypeVar("T")
Headers = Mapping[str, str]
Wording = Callable[[ErrorAnswer], ErrorAnswer]
"""How a contract words an error."""

PEER = "monitor.peer"
"""Key of a connection's TLS names in the scope of its requests; the door puts it there."""


class HttpPeer(NamedTuple):
    """Who calls: the headers of the request, and the names in a verified client certificate."""

    scope: Scope

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        """The headers, names in lower case."""
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.scope["headers"]]

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """The TLS version and the names in the client's certificate; empty without TLS."""
        found: Mapping[str, Sequence[bytes]] = self.scope.get(PEER, {})
        return found


class Exchange:
    """One request and its answer on the way: reads the body, sends JSON or a stream of events."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, most_bytes: int) -> None:
        self.scope, self.request_id = scope, request_id
        self._receive, self._to, self._most = receive, send, most_bytes
        self.begun = False
        """True once the status line has been sent."""
        self.ended = False
        """True once all of the answer was sent."""
        self.left = False
        """True once the caller has gone away."""
        self.watched = False
        """True while its work is cancelled where the caller goes away."""
        self.passed_on = False
        """True where the body is another server's, of which nothing is known."""
        self.stream_headers: dict[str, str] = {}
        """Further headers of a stream."""

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters in the path."""
        found: Mapping[str, str] = self.scope.get("path_params", {})
        return found

    async def body(self) -> dict[str, Any]:
        """The JSON object of the body. Raises HttpError or BadRequest where it is something else, or too large."""
        kind = self.header("content-type").split(";")[0].strip().lower()
        # Another type is what a web page may send to any address without asking, which is not to run the model.
        if kind != "application/json":
            raise HttpError(415, "send the body as JSON, with the header `content-type: application/json`")
        if self.header("content-encoding").strip().lower() not in ("", "identity"):
            raise HttpError(415, "send the body without compression")
        return parse(await self.content())

    async def content(self) -> bytes:
        """The bytes of the body. Raises HttpError where it is too large."""
        declared = self.header("content-length")
        if declared.isdecimal() and int(declared) > self._most:
            raise self._too_large()
        parts, size = [], 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left = True
                raise asyncio.CancelledError
            size += len(message.get("body", b""))
            if size > self._most:
                raise self._too_large()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    def _too_large(self) -> HttpError:
        return HttpError(413, f"the body is larger than {self._most} bytes; send less")

    def header(self, name: str) -> str:
        """The first header of this name; empty where there is none."""
        wanted = name.encode()
        found: bytes = next((value for key, value in self.scope["headers"] if key == wanted), b"")
        return found.decode("latin-1")

    async def gone(self) -> None:
        """Return once the caller has left. Call it when the body has been read."""
        while (await self._receive())["type"] != "http.disconnect":
            continue
        self.left = not self.ended

    async def json_list(self, content: Sequence[Any]) -> None:
        """Send a whole answer that is a list."""
        await self._whole(content, {}, 200)

    async def json(
        self, content: Mapping[str, Any], headers: Headers | None = None, status: int = 200
    ) -> None:
        """Send a whole answer."""
        await self._whole(content, headers or {}, status)

    async def _whole(self, content: Any, headers: Headers, status: int) -> None:
        body = dumps(content)
        sent = {"content-type": "application/json", "content-length": str(len(body))} | dict(headers)
        await self._start(status, sent)
        await self._send({"type": "http.response.body", "body": body})

    async def event(self, content: Mapping[str, Any]) -> None:
        """Send one event of a stream; the first one sends the headers before it."""
        await self.raw_event(b"data: " + dumps(content) + b"\n\n")

    async def raw_event(self, event: bytes) -> None:
        """Send one event of a stream as it is."""
        if not self.begun:
            # Some proxies hold a stream back unless they are asked not to.
            quick = {"cache-control": "no-cache", "x-accel-buffering": "no"}
            kind = {"content-type": "text/event-stream; charset=utf-8"}
            await self._start(200, kind | quick | self.stream_headers)
        await self._send(_piece(event, more=True))

    async def begin(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the head of an answer of another server, whose body is passed on by `piece`."""
        self.begun = self.passed_on = True
        await self._send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def piece(self, body: bytes, *, more: bool) -> None:
        """Send a part of a body."""
        await self._send(_piece(body, more=more))

    async def done(self) -> None:
        """End a stream that came to its end."""
        await self._send(_piece(b"data: [DONE]\n\n", more=False))

    async def failed(self, error: BaseException, worded: Wording) -> None:
        """Tell the caller of an error: by its status, or where that has been sent, as the stream's last event."""
        found = answer(error, self.request_id)
        if self.passed_on:
            return  # without its end, so that the connection is closed
        if not self.begun:
            said = worded(found)
            await self.json(said.body, said.headers, said.status)
            return
        await self._send(_piece(b"data: " + dumps(found.body) + b"\n\n", more=False))

    async def _send(self, message: Message) -> None:
        self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._to(message)

    async def _start(self, status: int, headers: Headers) -> None:
        self.begun = True
        pairs = {"x-request-id": self.request_id} | dict(headers)
        raw = [(name.encode(), value.encode("latin-1")) for name, value in pairs.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})


def dumps(content: Any) -> bytes:
    """JSON in UTF-8, on one line. Half characters, which UTF-8 cannot hold, become what models read instead."""
    return whole_characters(json.dumps(content, ensure_ascii=False, separators=(",", ":"))).encode()


def _piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


Method = Callable[[Exchange], Awaitable[None]]


def _openai(found: ErrorAnswer) -> ErrorAnswer:
    return found


class HttpCalls:
    """Makes ASGI applications of methods, each wrapped as described at the top of this module."""

    def __init__(
        self, checks: CallChecks, metrics: Metrics, limits: TimeLimits, traces: Tracing, most_bytes: int
    ) -> None:
        self._checks, self._metrics, self._limits, self._traces = checks, metrics, limits, traces
        self._most_bytes = most_bytes

    def endpoint(self, name: str, method: Method, worded: Wording = _openai) -> HttpMethod:
        """The ASGI application of a method, which is known by `name` to roles, metrics and decision log.

        `worded` makes its errors, by default those of the OpenAI API.
        """
        return HttpMethod(self, name, method, worded)

    async def run(self, served: HttpMethod, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one call to its end."""
        name, method = served.name, served.method
        call = Call(name, secrets.token_hex(16), time.perf_counter())
        enter(call)
        exchange = Exchange(scope, receive, send, call.request_id, self._most_bytes)
        try:
            with self._admitted(call, scope):
                await self._in_time(method, exchange)
        except Exception as error:  # noqa: BLE001  (no exception may reach the caller with its own text)
            code = error.code if isinstance(error, MonitorError) else "INTERNAL"
            self._end(call, code)
            report(call, code, error)
            await exchange.failed(error, served.worded)
        except asyncio.CancelledError:
            self._end(call, "CANCELLED")
            if not exchange.left:
                raise
            # The caller left, which is no error of this task: whoever runs it goes on.
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        else:
            self._end(call, "OK")

    @contextmanager
    def _admitted(self, call: Call, scope: Scope) -> Iterator[None]:
        peer = HttpPeer(scope)
        with self._checks.call(call.method, peer) as charge:
            enter(replace(call, charge=charge))
            sent = dict(peer.invocation_metadata())
            headers = {key: str(value) for key, value in sent.items() if key in ("traceparent", "tracestate")}
            tracing.enter(self._traces.begin(call.method, headers))
            yield

    async def _in_time(self, method: Method, exchange: Exchange) -> None:
        try:
            async with asyncio.timeout(self._limits.call) as limit:
                await method(exchange)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TooSlow(f"took longer than {self._limits.call:g} seconds, the longest here") from None

    async def read(self, exchange: Exchange) -> dict[str, Any]:
        """The body of a request. Raises TooSlow where it does not arrive in time."""
        return await self._read(exchange.body())

    async def read_bytes(self, exchange: Exchange) -> bytes:
        """The body of a request, whatever it is. Raises TooSlow where it does not arrive in time."""
        return await self._read(exchange.content())

    async def _read(self, body: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(body, self._limits.message)
        except TimeoutError:
            raise TooSlow(f"no body came within {self._limits.message:g} seconds") from None

    def _end(self, call: Call, code: str) -> None:
        self._metrics.call_ended(call.method, code, call.age())
        tracing.current_trace().end(code)


@dataclass(frozen=True)
class HttpMethod:
    """A method as an ASGI application."""

    calls: HttpCalls
    name: str
    method: Method
    worded: Wording

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self.calls.run(self, scope, receive, send)


async def together(work: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """Do all of it at once, each under a request id of its own where there is more than one.

    Where one raises, the others are cancelled, and that error is raised.
    """
    call = current_call()

    async def one(number: int) -> T:
        if len(work) > 1:
            enter(replace(call, request_id=f"{call.request_id}-{number}"))
        return await work[number]()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(len(work))]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


@contextmanager
def ending_with(exchange: Exchange) -> Iterator[None]:
    """Cancel the work in the block where the caller goes away. Enter it once the body has been read.

    A block within another adds nothing.
    """
    if exchange.watched:
        yield
        return
    task = asyncio.current_task()
    assert task is not None

    async def watch() -> None:
        await exchange.gone()
        if not exchange.ended:
            task.cancel()

    watching, exchange.watched = asyncio.ensure_future(watch()), True
    try:
        yield
    finally:
        exchange.watched = False
        watching.cancel()
