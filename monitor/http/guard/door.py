"""The guard's door: a port on which requests to the upstream server come in."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.errors import ConfigurationError
from monitor.http.calls import HttpCalls
from monitor.http.door import HttpDoor, app_of
from monitor.http.guard.proxy import METHODS, GuardProxy
from monitor.http.guard.session import GuardMode
from monitor.http.guard.upstream import Upstream, with_own_authorization
from monitor.rpc.server import DoorParts
from monitor.settings import Settings
from monitor.telemetry.metrics.guard import GuardMetrics

DEFAULT_LISTEN = "127.0.0.1:8080"
"""Where the guard listens where no setting says otherwise."""


def check_guard(settings: Settings) -> None:
    """Raise ConfigurationError where these settings are none of a guard. Called before a model is loaded."""
    if settings.upstream is None:
        raise ConfigurationError(
            "upstream: is missing; give the URL of the server to guard, such as --upstream http://127.0.0.1:8000"
        )
    Upstream(settings)


class GuardDoor(HttpDoor):
    """The HTTP port of a guard. Call `start` and `stop` once each."""

    _upstream: Upstream

    def _application(self) -> ASGIApp:
        settings, parts = self._settings, self._parts
        if why := parts.runtime.scorer.why_whole:
            raise ConfigurationError(
                f"this model cannot read text as it comes ({why}); take another one to watch with"
            )
        self._upstream = Upstream(settings)
        parts.metrics.methods(METHODS, parts.codes)
        return guard_application(settings, parts, self._upstream)

    async def stop(self, grace: float) -> None:
        """Close the port, wait up to `grace` seconds for answers in progress, then end them."""
        await super().stop(grace)
        await self._upstream.close()


def guard_application(settings: Settings, parts: DoorParts, upstream: Upstream) -> ASGIApp:
    """The ASGI application of a guard."""
    calls = HttpCalls(parts.checks, parts.metrics, parts.limits, parts.traces, settings.max_message_bytes)
    mode = GuardMode(
        settings.guard_mode,
        settings.guard_sample_tokens,
        settings.guard_read_seconds,
        settings.guard_settle_seconds,
    )
    passes = frozenset(path.strip() for path in settings.guard_pass_paths.split(",") if path.strip())
    proxy = GuardProxy(
        calls,
        parts.watches,
        parts.active,
        upstream,
        mode,
        GuardMetrics(parts.metrics.registry),
        passes=passes,
        most_bytes=settings.max_message_bytes,
    )
    inner = app_of(proxy.routes(), settings, parts)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = with_own_authorization(scope, checks_callers=parts.checks_callers)
        await inner(scope, receive, send)

    return guarded
