"""The health service (grpc.health.v1), which says whether this server can serve now.

It is SERVING while the engine runs, tokens can be scored and decisions can be logged. The status is given for the whole
server and for MonitorService, and is refreshed twice a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from monitor.errors import Unavailable
from monitor.rpc.calls import Calls

_log = structlog.get_logger(__name__)
_INTERVAL = 0.5
"""Seconds between two checks."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Checks the engine and sets the health status. Where the engine has died, all waiting calls are ended.

    Where a token could not be scored since the last check, the next check asks whether tokens can be scored now: by the
    passes since then where there is traffic, by a short text of its own where there is none. While they cannot, the
    status is NOT_SERVING and every check asks again, because a server that gets no traffic would never recover
    otherwise. Waiting in a queue is no fault.

    `healthy` says whether engine and scorer run, `unscored` how many passes had tokens that could not be scored,
    `can_see` whether tokens can be scored now (it blocks), and `can_log` whether decisions can be logged.
    """

    def __init__(
        self,
        service: str,
        healthy: Callable[[], bool],
        calls: Calls,
        *,
        unscored: Callable[[], int] = lambda: 0,
        can_see: Callable[[], bool] = lambda: True,
        can_log: Callable[[], bool] = lambda: True,
    ) -> None:
        self.servicer = HealthServicer()
        self.dead = asyncio.Event()
        """Set once the engine has died. It cannot be restarted in this process."""
        self.serving = False
        """True while the status is SERVING."""
        self._services = ("", service)
        self._healthy = healthy
        self._calls = calls
        self._unscored = unscored
        self._can_see = can_see
        self._can_log = can_log
        self._known = 0
        self._sees = True
        self._draining = False

    async def watch(self) -> None:
        """Check twice a second until cancelled. An exception in a check means NOT_SERVING and does not end the loop."""
        while True:
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001  (a server that cannot be checked must not look healthy)
                _log.error("health could not be checked; not serving", error=type(error).__name__)
                await self._set_status(False)
            await asyncio.sleep(_INTERVAL)

    async def check(self) -> None:
        """Check once and set the status. Where the engine has died, set `dead` and end all waiting calls."""
        healthy = self._healthy()
        serving = healthy and self._can_log() and await self._sees_tokens()
        await self._set_status(serving)
        if not healthy:
            self.dead.set()
            self._calls.fail_all(Unavailable("the engine does not run; the server must be restarted"))

    async def _set_status(self, serving: bool) -> None:
        # Checks go on while the server drains; they must not change its status back.
        self.serving = serving and not self._draining
        for service in self._services:
            await self.servicer.set(service, _SERVING if serving else _NOT_SERVING)

    async def _sees_tokens(self) -> bool:
        """False while tokens cannot be scored."""
        unscored = self._unscored()
        if self._sees and unscored == self._known:
            return True
        sees = await asyncio.to_thread(self._can_see)
        if sees != self._sees:
            _log.warning("monitoring works again" if sees else "monitoring does not work; not serving")
        self._known, self._sees = self._unscored() if sees else unscored, sees
        return sees

    async def drain(self) -> None:
        """Set the status to NOT_SERVING for good, because the server stops."""
        self.serving, self._draining = False, True
        await self.servicer.enter_graceful_shutdown()


_SLOWEST_WRITE = 10.0
"""Seconds in which a client of `Watch` must take a status; after that its stream is ended."""


class HealthServicer(health_aio.HealthServicer):  # type: ignore[misc]
    """The health service of grpcio with a `Watch` that never blocks others. Used on the event loop only.

    In grpcio's own version one client of `Watch` that does not read its stream blocks `set` for all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:  # noqa: N802
        """Stream the status of a service whenever it changes. A slow client gets the latest and misses older ones."""
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
        """Store a status and wake all streams. `set` and `enter_graceful_shutdown` of the base class call this."""
        self._server_status[service] = status
        self._changed.set()
        self._changed = asyncio.Event()

    def _statuses(self) -> Mapping[str, int]:
        found: Mapping[str, int] = self._server_status
        return found
