"""The gRPC server: its options, and a subclass of grpc.aio's server that a path which is not UTF-8 does not end.

grpcio 1.85.1 decodes the path of a call that belongs to no registered method in the loop that takes calls
(`AioServer._server_main_loop`). Bytes that are not UTF-8 raise there, and the server shuts down, whoever sent them.
All services here are registered, so a call outside of them is unknown whatever its path says: it is answered with
UNIMPLEMENTED before anything decodes it.

grpcio has no public way to do this. Where an upgrade changes the private names used here, servers do not start, or
`tests/rpc/process/test_grpc_server.py` fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import grpc
from grpc._cython import cygrpc
from grpc.aio._server import Server

from monitor.settings import Settings

_UNKNOWN = "Method not found!"
_PING_TIMEOUT_SHARE = 0.5
"""A ping must be answered within this share of the time between two pings, or the connection is closed."""

_PING_STRIKES = 2
"""Pings that may come too early before the connection is closed. Every message that the server sends forgives them."""


def server_options(settings: Settings) -> list[tuple[str, int]]:
    """Options of `grpc.aio.server` that keep one client from using more than its share.

    `grpc/impl/channel_arg_names.h` describes them. gRPC ignores a name that it does not have, so the tests look up
    every name in the library that is installed.
    """
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # Above the first size headers may be refused, above the second they always are. The defaults are 8 and 16 KiB.
        ("grpc.max_metadata_size", settings.max_header_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_header_bytes),
        ("grpc.max_allowed_incoming_connections", settings.max_connections),
        ("grpc.max_concurrent_streams", settings.max_calls_per_connection),
        ("grpc.server_handshake_timeout_ms", _ms(settings.handshake_seconds)),
        ("grpc.max_connection_idle_ms", _ms(settings.idle_seconds)),
        ("grpc.max_connection_age_ms", _ms(settings.max_connection_seconds)),
        ("grpc.max_connection_age_grace_ms", _ms(settings.max_call_seconds)),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_seconds)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_seconds * _PING_TIMEOUT_SHARE)),
        # Connections without calls are pinged too.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # The constant is called GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, and its value has no `recv`.
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.min_ping_seconds)),
        ("grpc.http2.max_ping_strikes", _PING_STRIKES),
        # By default a second server could listen on the same port and take half of the calls.
        ("grpc.so_reuseport", 0),
    ]


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    """Takes calls of registered methods, and refuses every other one."""

    async def _request_call(self) -> Any:
        """Refuse every call of an unregistered method. Never returns, so the base class never sees such a call."""
        answering: set[asyncio.Task[None]] = set()
        while True:
            call = await super()._request_call()
            # Not here: an answer ends when it is sent, and a caller who reads nothing would hold up all others.
            task = asyncio.create_task(_refuse(call))
            answering.add(task)
            task.add_done_callback(answering.discard)


async def _refuse(call: Any) -> None:
    """Answer UNIMPLEMENTED to a call, unless its caller has left."""
    beginning = cygrpc.SendInitialMetadataOperation((), 0)
    with suppress(grpc.aio.InternalError):
        await cygrpc._send_error_status_from_server(
            call, cygrpc.StatusCode.unimplemented, _UNKNOWN, (), beginning, asyncio.get_running_loop()
        )


class CoreServer(Server):
    """`grpc.aio.server(…)`, for services that are added as registered methods (generated code does so)."""

    def __init__(
        self,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        options: Sequence[tuple[str, int]],
        maximum_concurrent_rpcs: int,
    ) -> None:
        # What the base class does, with another core.
        self._loop = cygrpc.get_working_loop()
        self._server = _Core(
            self._loop, None, (), tuple(interceptors), tuple(options), maximum_concurrent_rpcs
        )
