"""`grpc.health.v1` with watchers that cannot hold each other, or the server, up.

grpcio's own servicer writes to a watcher while it holds the lock that a change of status needs: a watcher who reads
nothing (an HTTP/2 window of zero) would freeze the status and the server's stop. Here every watcher waits alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

_SLOWEST_WRITE = 10.0
"""Seconds in which a watcher must take a status, or it is let go."""


class HealthServicer(health_aio.HealthServicer):  # type: ignore[misc]
    """`Check` as it comes; `Watch` and `set` without a lock. Lives on the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Every status of a service from now on; the latest where several came while the watcher was slow."""
        last = None
        while True:
            changed = self._changed
            status = self._statuses().get(request.service, health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
            if status == last:
                await changed.wait()
                continue
            last = status
            answer = health_pb2.HealthCheckResponse(status=status)
            await asyncio.wait_for(context.write(answer), _SLOWEST_WRITE)

    async def _set(self, service: str, status: int) -> None:
        """What `set` and `enter_graceful_shutdown` of the base class end in."""
        self._server_status[service] = status
        self._changed.set()
        self._changed = asyncio.Event()

    def _statuses(self) -> Mapping[str, int]:
        found: Mapping[str, int] = self._server_status
        return found
