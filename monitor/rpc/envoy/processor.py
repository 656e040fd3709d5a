"""The external processor: the service that Envoy calls for every request, in front of an application that serves HTTP.

Envoy is the caller whose token or certificate is checked, for it alone speaks gRPC here. The checks themselves are made
by the application, as for each request over HTTP, so that Envoy's client is told of a refusal with the status of HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from monitor.rpc.access.call_interceptor import Context, TimeLimits
from monitor.rpc.envoy.conversation import CONVERSATION, EnvoyConversation, Gone, OutOfOrder
from monitor.rpc.envoy.headers import Header
from monitor.rpc.process.grpc_server import CoreServer

SERVICE = "envoy.service.ext_proc.v3.ExternalProcessor"
METHOD = "Process"
GRPC_PEER = "monitor.grpc_peer"
"""Key of the gRPC call that a request came with, in the scope of the request."""

Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]
"""What serves HTTP, as ASGI has it."""

_log = structlog.get_logger(__name__)


class ExternalProcessor:
    """`envoy.service.ext_proc.v3.ExternalProcessor` in front of an application."""

    def __init__(self, application: Application, limits: TimeLimits) -> None:
        self._application, self._limits = application, limits

    def add_to(self, server: CoreServer) -> None:
        """Serve it at a gRPC server that has not started."""
        # Messages stay bytes: what cannot be parsed is answered here.
        handler: Any = grpc.stream_stream_rpc_method_handler(self._process)
        handlers = {METHOD: handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_registered_method_handlers(SERVICE, handlers)

    async def _process(self, _: Any, context: Context) -> None:
        conversation = EnvoyConversation(context)
        filling = asyncio.create_task(conversation.fill())
        left = False
        try:
            await self._serve(conversation, context)
        except Gone:
            left = True
        finally:
            filling.cancel()
            await asyncio.wait([filling])
            error = None if filling.cancelled() else filling.exception()
        if left and error is None:
            return
        if isinstance(error, OutOfOrder | DecodeError):
            _log.error(
                "Envoy sends what cannot be processed",
                hint="set both body modes to FULL_DUPLEX_STREAMED and the trailer modes to SEND",
            )
        if error is not None or not conversation.over:
            # Without an end of its own the response is broken off, or refused where it has not begun.
            with suppress(grpc.aio.InternalError):
                await context.abort(grpc.StatusCode.INTERNAL, "the request could not be processed")

    async def _serve(self, conversation: EnvoyConversation, context: Context) -> None:
        try:
            async with asyncio.timeout(self._limits.message):
                fields = await conversation.begin()
        except TimeoutError:
            raise Gone from None
        scope = _scope(fields)
        scope[CONVERSATION], scope[GRPC_PEER] = conversation, context
        await self._application(scope, conversation.receive, conversation.send)


def _scope(fields: list[Header]) -> dict[str, Any]:
    """The scope of a request, from its headers."""
    pseudo = {name: value for name, value in fields if name.startswith(b":")}
    path, _, query = pseudo.get(b":path", b"/").partition(b"?")
    plain = [(name, value) for name, value in fields if not name.startswith(b":")]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "2",
        "method": pseudo.get(b":method", b"GET").decode("latin-1"),
        "scheme": pseudo.get(b":scheme", b"http").decode("latin-1"),
        "path": _unquoted(path),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", pseudo.get(b":authority", b"")), *plain],
        "client": None,
        "server": None,
    }


def _unquoted(path: bytes) -> str:
    from urllib.parse import unquote

    return unquote(path.decode("latin-1"), errors="replace")
