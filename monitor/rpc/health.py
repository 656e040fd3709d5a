"""grpc.health.v1 for the whole server and for MonitorService, kept true while the server runs.

Knows when serving is possible: the engine runs, since the last token that could not be scored a probe was, and
decisions can be logged. Does not know why it is not.
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
"""Seconds between two looks at the engine."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Looks at the engine twice a second; where it is dead, says so and ends whoever waits for it.

    Where something could not be scored since the last look, a probe decides whether that persists. While it does, the
    status is NOT_SERVING and each look probes again, since a server that gets no traffic would never see otherwise.
    """

    def __init__(
        self,
        service: str,
        healthy: Callable[[], bool],
        calls: Calls,
        *,
        unscored: Callable[[], int] = lambda: 0,
        can_see: Callable[[], bool] = lambda: True,
        accountable: Callable[[], bool] = lambda: True,
    ) -> None:
        self.servicer = HealthServicer()
        self.dead = asyncio.Event()
        """Set once the engine does not run any more: only a new process helps."""
        self.serving = False
        """What callers of the health service are told."""
        self._services = ("", service)
        self._healthy = healthy
        self._calls = calls
        self._unscored = unscored
        self._can_see = can_see
        self._accountable = accountable
        self._known = 0
        self._sees = True
        self._draining = False

    async def watch(self) -> None:
        """Run until cancelled, whatever a look comes upon: nobody else would notice a stall."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  (what cannot be looked at is not known to be well)
                _log.error("health could not be looked at; not serving", error=type(error).__name__)
                await self._say(False)
            await asyncio.sleep(_INTERVAL)

    async def look(self) -> None:
        """Set the status of every service to what holds now."""
        healthy = self._healthy()
        serving = healthy and self._accountable() and await self._looks_clear()
        await self._say(serving)
        if not healthy:
            self.dead.set()
            self._calls.fail_all(Unavailable("the engine does not run; the server must be restarted"))

    async def _say(self, serving: bool) -> None:
        # Looks go on while the server drains; what its callers were told then stays.
        self.serving = serving and not self._draining
        for service in self._services:
            await self.servicer.set(service, _SERVING if serving else _NOT_SERVING)

    async def _looks_clear(self) -> bool:
        """False while probes cannot be scored."""
        unscored = self._unscored()
        if self._sees and unscored == self._known:
            return True
        sees = await asyncio.to_thread(self._can_see)
        if sees != self._sees:
            _log.warning("monitoring works again" if sees else "monitoring does not work; not serving")
        self._known, self._sees = self._unscored() if sees else unscored, sees
        return sees

    async def drain(self) -> None:
        """NOT_SERVING from now on."""
        self.serving, self._draining = False, True
        await self.servicer.enter_graceful_shutdown()


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
