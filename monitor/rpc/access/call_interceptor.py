"""The interceptor around every call of MonitorService.

It checks the caller, enforces time limits, gives the call a request id, turns errors into statuses, and counts and logs
how calls end. It is the only place that catches all exceptions. It never logs what a caller sent, nor the text of an
unexpected exception, which may quote it. Every method is registered as a stream of messages, which is the same on the
wire, so that no message is read before its caller was accepted; one that takes many messages gets an iterator of them.
Calls of other services are passed on.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from monitor.errors import BadRequest, MonitorError, TooSlow, Violation
from monitor.rpc import error_status
from monitor.rpc.access import roles
from monitor.rpc.access.call_checks import CallChecks
from monitor.rpc.access.quota import Charge
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.tracing import context as tracing
from monitor.telemetry.tracing.context import CallerTracing, Tracing

CODES = (
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "UNAUTHENTICATED",
    "UNAVAILABLE",
)
"""All statuses that calls of MonitorService can end with, as label values of metrics."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]

_log = structlog.get_logger(__name__)

_FEEDS = frozenset({"WatchDetections"})
"""Calls that go on as long as calls may, so that a token can be withdrawn meanwhile."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call in progress."""

    method: str
    request_id: str
    arrived: float
    """Time of arrival, in seconds of `time.perf_counter`."""
    charge: Charge | None = None
    """Counts the tokens of this call against its caller's quota; None before the caller was accepted."""

    def charged(self, tokens: int) -> None:
        """Charge tokens to the caller's quota. Raises Overloaded or BadRequest where it does not allow them."""
        if self.charge is not None:
            self.charge.take(tokens)

    def age(self) -> float:
        """Seconds since the call arrived."""
        return time.perf_counter() - self.arrived


_current: ContextVar[Call] = ContextVar("call")


def enter(call: Call) -> None:
    """Make this the call that the current task serves."""
    _current.set(call)


def current_call() -> Call:
    """The call that the current task serves. Raises LookupError outside of a call."""
    return _current.get()


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """The longest times that a call may take, in seconds."""

    message: float
    """Longest time from the start of a call until its message has arrived."""
    call: float
    """Longest time from the start of a call to its end, even where the caller sets a later deadline."""


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of one service, as described at the top of this module."""

    def __init__(
        self,
        service: str,
        checks: CallChecks,
        metrics: Metrics,
        limits: TimeLimits,
        traces: Tracing | None = None,
    ) -> None:
        self._prefix = f"/{service}/"
        self._checks = checks
        self._metrics = metrics
        self._limits = limits
        self._traces = traces or CallerTracing()
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped handler of a method, which is created at its first call."""
        path = str(handler_call_details.method)
        if path in self._wrapped:
            return self._wrapped[path]
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith(self._prefix):
            return handler
        self._wrapped[path] = self._wrap(path.removeprefix(self._prefix), handler)
        return self._wrapped[path]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """The handler, wrapped so that its message is read here and a malformed one ends as a bad request."""
        streaming, many = handler.response_streaming, handler.request_streaming
        # The stubs describe handlers of the synchronous server only.
        kinds = handler.stream_stream if many else handler.unary_stream if streaming else handler.unary_unary
        behaviour = cast("Behaviour", kinds)
        parse = handler.request_deserializer

        async def wrapped(_: Any, context: Context) -> None:
            accepted = self._checks.while_accepted(method, context) if method in _FEEDS else nullcontext()
            async with self._call(method, context), self._in_time(), accepted:
                request = _parsed(parse, await self._message(context))
                self._checks.check(request)
                answer = await behaviour(_and_others(request, parse, context) if many else request, context)
                if not streaming:
                    await context.write(answer)

        wrapper: Handler = grpc.stream_stream_rpc_method_handler(
            wrapped, request_deserializer=None, response_serializer=handler.response_serializer
        )
        return wrapper

    async def _message(self, context: Context) -> bytes:
        try:
            data = await asyncio.wait_for(context.read(), self._limits.message)
        except TimeoutError:
            raise TooSlow(f"no message came within {self._limits.message:g} seconds") from None
        if context.cancelled():
            raise asyncio.CancelledError
        if not isinstance(data, bytes):
            raise BadRequest(Violation("request", "is missing; send one message"))
        return data

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.call) as limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise TooSlow(f"took longer than {self._limits.call:g} seconds, the longest here") from None

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        call = Call(method, secrets.token_hex(16), time.perf_counter())
        enter(call)
        try:
            with self._checks.call(method, context) as charge:
                enter(replace(call, charge=charge))
                tracing.enter(self._traces.begin(method, _trace_headers(context)))
                yield
        except grpc.aio.InternalError:  # The call ended while it was written to.
            self._end(call, _cancelled(call, context))
            with suppress(grpc.aio.InternalError):
                await context.abort(grpc.StatusCode.CANCELLED)
        except Exception as error:  # noqa: BLE001  (no exception may reach the caller with its own text)
            status = error_status.grpc_status(error_status.status_of(error, call.request_id))
            self._end(call, status.code.name)
            report(call, status.code.name, error)
            with suppress(grpc.aio.InternalError):
                await context.abort_with_status(status)
        except (
            BaseException
        ):  # Cancellation: the caller went away, or its deadline passed, or the server stops.
            self._end(call, _cancelled(call, context))
            raise
        else:
            self._end(call, "OK")

    def _end(self, call: Call, code: str) -> None:
        """Count the end of a call. Called before its caller is told."""
        self._metrics.call_ended(call.method, code, call.age())
        tracing.current_trace().end(code)


def _trace_headers(context: Context) -> dict[str, str]:
    """The caller's trace context (https://www.w3.org/TR/trace-context). Of a header that was sent twice, the last."""
    sent = context.invocation_metadata() or ()
    return {key: str(value) for key, value in sent if key in ("traceparent", "tracestate")}


def _parsed(parse: Callable[[bytes], Any] | None, data: bytes) -> Any:
    if parse is None:
        return data
    try:
        return parse(data)
    except DecodeError:
        raise BadRequest(
            Violation("request", "is not a message of this method; strings must be valid UTF-8")
        ) from None


async def _and_others(
    first: Any, parse: Callable[[bytes], Any] | None, context: Context
) -> AsyncIterator[Any]:
    """The messages of a call, of which the first was read already, as they come. Raises BadRequest."""
    yield first
    while isinstance(data := await context.read(), bytes):
        yield _parsed(parse, data)
    if context.cancelled():
        raise asyncio.CancelledError


def _cancelled(call: Call, context: Context) -> str:
    """Whether a cancelled call ended because of its deadline.

    A client whose deadline has passed cancels the call, often a moment before the deadline passes here: its clock began
    earlier, and gRPC rounds the remaining time that it sends up, by at most a hundredth.
    """
    left = context.time_remaining()
    return "DEADLINE_EXCEEDED" if left is not None and left <= 0.1 + call.age() / 50 else "CANCELLED"


def report(call: Call, code: str, error: Exception) -> None:
    """Log one line for a failed call: the kind of error, and for unexpected ones also the place in the code."""
    log = _log.bind(
        request_id=call.request_id,
        method=call.method,
        caller=roles.caller.get().name,
        code=code,
        error=type(error).__name__,
    )
    if isinstance(error, MonitorError) and code != "INTERNAL":
        log.info("call failed")
        return
    frames = traceback.extract_tb(error.__traceback__)
    log.error("call failed unexpectedly", at=[f"{f.filename}:{f.lineno} {f.name}" for f in frames[-8:]])
