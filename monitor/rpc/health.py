"""grpc.health.v1 for the whole server and for MonitorService, kept true while the server runs.

Knows when serving is possible. Does not know why it is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from monitor.errors import Unavailable
from monitor.rpc.calls import Calls

_INTERVAL = 0.5
"""Seconds between two looks at the engine."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Looks at the engine twice a second; where it is dead, says so and ends whoever waits for it."""

    def __init__(self, service: str, healthy: Callable[[], bool], calls: Calls) -> None:
        self.servicer = health_aio.HealthServicer()
        self._services = ("", service)
        self._healthy = healthy
        self._calls = calls

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Set the status of every service to what holds now."""
        healthy = self._healthy()
        for service in self._services:
            await self.servicer.set(service, _SERVING if healthy else _NOT_SERVING)
        if not healthy:
            self._calls.fail_all(Unavailable("the engine does not run; the server must be restarted"))

    async def drain(self) -> None:
        """NOT_SERVING from now on."""
        await self.servicer.enter_graceful_shutdown()
