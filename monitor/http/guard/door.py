"""The guard's door: a port on which requests to the upstream server come in."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from monitor.errors import ConfigurationError
from monitor.http.calls import HttpCalls
from monitor.http.door import HttpDoor, app_of
from monitor.http.guard.envoy import EnvoyUpstream, of_envoy
from monitor.http.guard.proxy import ENVOY_METHODS, METHODS, Behind, GuardProxy
from monitor.http.guard.session import GuardMode
from monitor.http.guard.upstream import Upstream, with_own_authorization
from monitor.rpc.server import DoorParts
from monitor.settings import Settings
from monitor.telemetry.metrics.guard import GuardMetrics

DEFAULT_LISTEN = "127.0.0.1:8080"
"""Where the guard listens where no setting says otherwise."""


def check_guard(settings: Settings) -> None:
    """Raise ConfigurationError where these settings are none of a guard. Called before a model is loaded."""
    if settings.upstream is None and not settings.envoy:
        raise ConfigurationError(
            "upstream: is missing; give the URL of the server to guard, such as --upstream http://127.0.0.1:8000, or "
            "--envoy where Envoy stands in front of it"
        )
    if settings.upstream is not None:
        Upstream(settings)
    if settings.envoy:
        EnvoyUpstream(settings)


class GuardDoor(HttpDoor):
    """The HTTP port of a guard, and its part in Envoy. Call `start` and `stop` once each."""

    upstream: Upstream | None = None
    """The server behind it; None where that stands behind Envoy."""

    def _application(self) -> ASGIApp:
        settings, parts = self._settings, self._parts
        if why := parts.runtime.scorer.why_whole:
            raise ConfigurationError(
                f"this model cannot read text as it comes ({why}); take another one to watch with"
            )
        metrics = GuardMetrics(parts.metrics.registry)
        if settings.envoy:
            parts.metrics.methods(ENVOY_METHODS, parts.codes)
            parts.waits.serves("envoy")
            parts.add_envoy(envoy_application(settings, parts, metrics))
        if settings.upstream is None:
            return app_of([], settings, parts)
        self.upstream = Upstream(settings)
        parts.metrics.methods(METHODS, parts.codes)
        parts.waits.serves("guard")
        return guard_application(settings, parts, self.upstream, metrics)

    async def stop(self, grace: float) -> None:
        """Close the port, wait up to `grace` seconds for answers in progress, then end them."""
        await super().stop(grace)
        if self.upstream is not None:
            await self.upstream.close()


def guard_application(
    settings: Settings, parts: DoorParts, upstream: Upstream, metrics: GuardMetrics
) -> ASGIApp:
    """The ASGI application of a guard."""
    inner = app_of(_proxy(settings, parts, upstream, metrics, METHODS).routes(), settings, parts)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = with_own_authorization(scope, checks_callers=parts.checks_callers)
        await inner(scope, receive, send)

    return guarded


def envoy_application(settings: Settings, parts: DoorParts, metrics: GuardMetrics) -> ASGIApp:
    """The ASGI application of a guard that Envoy asks."""
    proxy = _proxy(settings, parts, EnvoyUpstream(settings), metrics, ENVOY_METHODS)
    # Hosts are Envoy's to check, which routes by them.
    inner = app_of(proxy.routes(), settings, parts, any_host=True)

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(of_envoy(scope), receive, send)

    return guarded


def _proxy(
    settings: Settings,
    parts: DoorParts,
    upstream: Behind,
    metrics: GuardMetrics,
    methods: tuple[str, str, str],
) -> GuardProxy:
    calls = HttpCalls(parts.checks, parts.metrics, parts.limits, parts.traces, settings.max_message_bytes)
    mode = GuardMode(
        settings.guard_mode,
        settings.guard_sample_tokens,
        settings.guard_read_seconds,
        settings.guard_settle_seconds,
    )
    return GuardProxy(
        calls,
        parts.watches,
        parts.active,
        upstream,
        mode,
        metrics,
        parts.waits,
        passes=frozenset(path.strip() for path in settings.guard_pass_paths.split(",") if path.strip()),
        most_bytes=settings.max_message_bytes,
        methods=methods,
    )
