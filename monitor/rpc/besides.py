"""What guards the services beside MonitorService: health for everybody, anything else for known callers.

Health says SERVING or not, and probes carry no tokens. Reflection describes every method, so a server that asks
callers who they are asks here too. Streams of both are few, or one peer could take every place for calls.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from monitor.errors import MonitorError, Overloaded
from monitor.rpc import faults
from monitor.rpc.gate import Gate
from monitor.telemetry.metrics import Metrics

HEALTH = "/grpc.health.v1.Health/"
MOST_STREAMS = 32

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class BesidesInterceptor(grpc.aio.ServerInterceptor):
    """Wraps streaming methods of every service but one; calls with one answer pass as they are."""

    def __init__(self, service: str, gate: Gate, retry_after: float, metrics: Metrics) -> None:
        self._own = f"/{service}/"
        self._gate, self._retry_after, self._metrics = gate, retry_after, metrics
        self._streams = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The handler, wrapped where it streams."""
        path = str(handler_call_details.method)
        handler = await continuation(handler_call_details)
        if handler is None or path.startswith(self._own) or not handler.response_streaming:
            return handler
        return self._wrap(path, handler)

    def _wrap(self, path: str, handler: Handler) -> Handler:
        many = handler.request_streaming
        behaviour: Any = handler.stream_stream if many else handler.unary_stream

        async def wrapped(request: Any, context: Context) -> None:
            try:
                self._begin(path, context)
            except MonitorError as error:
                await context.abort_with_status(faults.grpc_status(faults.status_of(error, "")))
            self._streams += 1
            try:
                answers = behaviour(request, context)
                if not inspect.isasyncgen(answers):
                    await answers
                    return
                async for answer in answers:
                    await context.write(answer)
            finally:
                self._streams -= 1

        make = grpc.stream_stream_rpc_method_handler if many else grpc.unary_stream_rpc_method_handler
        wrapper: Handler = make(wrapped, handler.request_deserializer, handler.response_serializer)
        return wrapper

    def _begin(self, path: str, context: Context) -> None:
        if not path.startswith(HEALTH):
            self._gate.identify(context)
        if self._streams >= MOST_STREAMS:
            self._metrics.rejected("calls")
            raise Overloaded(f"{MOST_STREAMS} such streams are open; try again", self._retry_after)
