"""What happens around every call of MonitorService: admission, a request id, errors, metrics, a log line.

The only place that catches broadly. Calls of other services (health, reflection) pass untouched. Never logs
what a caller sent, nor the text of an unexpected exception, which may quote it.
"""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from monitor.errors import BadRequest, MonitorError, Violation
from monitor.rpc import faults
from monitor.rpc.admission import Admission
from monitor.telemetry.metrics import Metrics

CODES = (
    "OK",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
)
"""Statuses that calls of MonitorService can end with, for the label sets of the metrics."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Context], Awaitable[Any]]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call in progress."""

    method: str
    request_id: str
    arrived: float
    """Seconds of `time.perf_counter`."""

    def age(self) -> float:
        """Seconds since it arrived."""
        return time.perf_counter() - self.arrived


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """The call that this task serves; LookupError outside of one."""
    return _current.get()


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every method of one service."""

    def __init__(self, service: str, admission: Admission, metrics: Metrics) -> None:
        self._prefix = f"/{service}/"
        self._admission = admission
        self._metrics = metrics
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The wrapped handler, made at the first call of a method."""
        path = str(handler_call_details.method)
        if path in self._wrapped:
            return self._wrapped[path]
        handler = await continuation(handler_call_details)
        if handler is None or not path.startswith(self._prefix):
            return handler
        self._wrapped[path] = self._wrap(path.removeprefix(self._prefix), handler)
        return self._wrapped[path]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        """The handler with its messages read here, so that malformed ones end like any other bad request."""
        streaming = handler.response_streaming
        # The stubs describe handlers of the synchronous server only.
        behaviour = cast("Behaviour", handler.unary_stream if streaming else handler.unary_unary)
        parse = handler.request_deserializer

        async def wrapped(data: bytes, context: Context) -> Any:
            async with self._call(method, context):
                return await behaviour(_parsed(parse, data), context)

        make = grpc.unary_stream_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
        wrapper: Handler = make(
            wrapped, request_deserializer=None, response_serializer=handler.response_serializer
        )
        return wrapper

    @asynccontextmanager
    async def _call(self, method: str, context: Context) -> AsyncIterator[None]:
        call = Call(method, secrets.token_hex(16), time.perf_counter())
        _current.set(call)
        try:
            with self._admission.call():
                yield
        except Exception as error:  # noqa: BLE001  (the border: nothing may pass as its own text)
            status = faults.grpc_status(faults.status_of(error, call.request_id))
            self._end(call, status.code.name)
            _report(call, status.code.name, error)
            await context.abort_with_status(status)
        except (
            BaseException
        ):  # Cancellation: the caller went away, or its deadline passed, or the server stops.
            self._end(call, _cancelled(context))
            raise
        else:
            self._end(call, "OK")

    def _end(self, call: Call, code: str) -> None:
        """Count a call, before its caller learns how it ended."""
        self._metrics.call_ended(call.method, code, call.age())


def _parsed(parse: Callable[[bytes], Any] | None, data: bytes) -> Any:
    if parse is None:
        return data
    try:
        return parse(data)
    except DecodeError:
        raise BadRequest(
            Violation("request", "is not a message of this method; strings must be valid UTF-8")
        ) from None


def _cancelled(context: Context) -> str:
    left = context.time_remaining()
    return "DEADLINE_EXCEEDED" if left is not None and left <= 0 else "CANCELLED"


def _report(call: Call, code: str, error: Exception) -> None:
    """One line per failed call: for what we raise its kind, for anything else also where it came from."""
    log = _log.bind(request_id=call.request_id, method=call.method, code=code, error=type(error).__name__)
    if isinstance(error, MonitorError) and code != "INTERNAL":
        log.info("call failed")
        return
    frames = traceback.extract_tb(error.__traceback__)
    log.error("call failed unexpectedly", at=[f"{f.filename}:{f.lineno} {f.name}" for f in frames[-8:]])
