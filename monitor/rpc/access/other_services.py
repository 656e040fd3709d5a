"""The interceptor around calls of all other services than MonitorService: health and reflection.

Anybody may call the health service: it says SERVING or NOT_SERVING, and probes carry no tokens. Calls of any other
service must authenticate where a callers file is set, because reflection describes every method.

gRPC limits the number of calls in progress on the whole server, so these calls must not use it up. Streams, and calls
of one connection, are limited in number. A call that sends no message, or does not take its answer, is ended after a
time, or earlier where newer calls need its place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError

from monitor.errors import BadRequest, MonitorError, Overloaded, TooSlow, Violation
from monitor.rpc import error_status
from monitor.rpc.access.call_checks import CallChecks
from monitor.telemetry.metrics.metrics import Metrics

HEALTH = "/grpc.health.v1.Health/"
ENVOY = "/envoy.service.ext_proc.v3.ExternalProcessor/"
"""Its calls are requests of callers, and pass the checks of those; see `rpc/envoy`."""
MOST_STREAMS = 32
MOST_OF_ONE = 64
"""Maximum number of calls in progress on one connection. gRPC counts a call until the client has taken its last byte,
which may be never."""
MOST_BRIEF = 256
"""Maximum number of calls that wait for a message to arrive or for an answer to be taken. A probe needs milliseconds
for both."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
T = TypeVar("T")


class BesidesInterceptor(grpc.aio.ServerInterceptor):
    """Wraps methods of every service but one, so that their messages are waited for here and not inside gRPC."""

    def __init__(
        self,
        service: str,
        gate: CallChecks,
        retry_after: float,
        metrics: Metrics,
        message_seconds: float = 10.0,
    ) -> None:
        """`message_seconds` limits the time for a message to arrive and, in unary calls, for its answer to be taken."""
        self._own = (f"/{service}/", ENVOY)
        self._gate, self._retry_after, self._metrics = gate, retry_after, metrics
        self._seconds = message_seconds
        self._streams = 0
        self._brief: dict[asyncio.Timeout, None] = {}
        """The time limits of the calls that wait now, oldest first."""
        self._peers: Counter[str] = Counter()
        """Number of calls in progress, by connection."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler of a method; wrapped, unless the method belongs to MonitorService."""
        path = str(handler_call_details.method)
        handler = await continuation(handler_call_details)
        if handler is None or path.startswith(self._own):
            return handler
        return self._wrap(path, handler)

    def _wrap(self, path: str, handler: Handler) -> Handler:
        many = handler.request_streaming

        async def wrapped(requests: Any, context: Context) -> None:
            try:
                self._counted(context.peer())
                if not path.startswith(HEALTH):
                    self._gate.identify(context)
                if not handler.response_streaming:
                    await self._in_brief(_answer(handler, context))
                    return
                with self._stream():
                    request = requests if many else await self._in_brief(_message(handler, context))
                    behaviour: Any = handler.stream_stream if many else handler.unary_stream
                    await _write_all(behaviour(request, context), context)
            except MonitorError as error:
                await context.abort_with_status(error_status.grpc_status(error_status.status_of(error, "")))

        parse = handler.request_deserializer if many else None
        wrapper: Handler = grpc.stream_stream_rpc_method_handler(wrapped, parse, handler.response_serializer)
        return wrapper

    def _counted(self, peer: str) -> None:
        """Count the current call for its connection until it has ended. Raises Overloaded where there are too many."""
        if self._peers[peer] >= MOST_OF_ONE:
            self._metrics.rejected("calls")
            raise Overloaded(
                f"{MOST_OF_ONE} such calls of this connection are open; try again", self._retry_after
            )
        self._peers[peer] += 1
        task = asyncio.current_task()
        assert task is not None

        def ended(_: object) -> None:
            self._peers[peer] -= 1
            if not self._peers[peer]:
                del self._peers[peer]

        task.add_done_callback(ended)

    @contextmanager
    def _stream(self) -> Iterator[None]:
        if self._streams >= MOST_STREAMS:
            self._metrics.rejected("calls")
            raise Overloaded(f"{MOST_STREAMS} such streams are open; try again", self._retry_after)
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _in_brief(self, work: Awaitable[T]) -> T:
        """Await `work`. Raises TooSlow where it takes too long, or is the oldest when a newer call needs its place."""
        if len(self._brief) >= MOST_BRIEF:
            oldest = next(iter(self._brief))
            del self._brief[oldest]
            oldest.reschedule(0.0)
        try:
            async with asyncio.timeout(self._seconds) as limit:
                self._brief[limit] = None
                try:
                    return await work
                finally:
                    self._brief.pop(limit, None)
        except TimeoutError:
            raise TooSlow("the message took too long to come, or its answer to be taken") from None


async def _message(handler: Handler, context: Context) -> Any:
    data = await context.read()
    if not isinstance(data, bytes):
        raise BadRequest(Violation("request", "is missing; send one message"))
    parse: Any = handler.request_deserializer
    try:
        return parse(data)
    except DecodeError:
        raise BadRequest(Violation("request", "is not a message of this method")) from None


async def _answer(handler: Handler, context: Context) -> None:
    behaviour: Any = handler.unary_unary
    await context.write(await behaviour(await _message(handler, context), context))


async def _write_all(answers: Any, context: Context) -> None:
    """Run a streaming method. A coroutine writes its messages itself; those of a generator are written here."""
    if not isinstance(answers, AsyncIterable):
        await answers
        return
    async for answer in answers:
        await context.write(answer)
