"""grpc.aio's server, protected against calls whose path is not UTF-8: one of them would shut it down.

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

_UNKNOWN = "Method not found!"


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
