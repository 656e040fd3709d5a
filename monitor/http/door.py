"""The HTTP door: a port on which uvicorn serves the OpenAI API, on the event loop of the server that it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor.errors import ConfigurationError, MonitorError
from monitor.http.calls import PEER, HttpCalls
from monitor.http.contracts import detectors, litellm, webhook
from monitor.http.contracts.judgement import ContractJudge
from monitor.http.errors import HttpError, answer
from monitor.http.openai.api import OpenAiApi, ServedModel
from monitor.pairs.registry import named
from monitor.rpc.access.exposure import is_loopback
from monitor.rpc.access.tls import Certificates, watched_certificates
from monitor.rpc.server import DoorParts
from monitor.settings import Settings, split_address
from monitor.telemetry.metrics.http import listening_socket

METHODS = (
    *("ChatCompletions", "Completions", "Models", "Moderations"),
    litellm.METHOD,
    *webhook.METHODS,
    *detectors.METHODS,
)
"""Names of the methods in metrics, decision log and roles."""

_LOOK = 2.0
"""Seconds between two looks at the certificate files."""
_BACKLOG = 1024
_LOCAL = ("localhost",)

_log = structlog.get_logger(__name__)


class HttpDoor:
    """The HTTP port of one server. Call `start` and `stop` once each."""

    setting = "http_listen"
    """Name of the setting that says where it listens."""

    def __init__(self, settings: Settings, parts: DoorParts) -> None:
        self._settings, self._parts = settings, parts
        self._listen: str = getattr(settings, self.setting)
        self._app = self._application()
        self._socket: socket.socket
        self._running: list[tuple[_Uvicorn, asyncio.Task[None]]] = []
        self._watching: asyncio.Task[None] | None = None

    def _application(self) -> ASGIApp:
        """What answers requests."""
        self._parts.metrics.methods(METHODS, self._parts.codes)
        return application(self._settings, self._parts)

    async def start(self) -> str:
        """Open the port; its URL. Raises ConfigurationError where that is not possible."""
        certificates = watched_certificates(self._settings, self._parts.security)
        self._socket = listening(self._listen, self.setting)
        host, _ = split_address(self._listen)
        port = self._socket.getsockname()[1]
        if certificates is None:
            await self._serve(None)
            return f"http://{_literal(host)}:{port}"
        await self._serve(certificates.value())

        async def follow() -> None:
            used = certificates.value()
            while True:
                await asyncio.sleep(_LOOK)
                if (now := certificates.value()) != used:
                    used = now
                    await self._serve(now)

        self._watching = asyncio.create_task(follow())
        return f"https://{_literal(host)}:{port}"

    async def stop(self, grace: float) -> None:
        """Close the port, wait up to `grace` seconds for answers in progress, then end them."""
        if self._watching is not None:
            self._watching.cancel()
        self._socket.close()
        for server, _ in self._running:
            server.config.timeout_graceful_shutdown = max(1, round(grace))
            server.should_exit = True
        await asyncio.gather(*(task for _, task in self._running), return_exceptions=True)

    async def _serve(self, certificates: Certificates | None) -> None:
        """Accept connections with these certificates from now on; older connections finish with theirs."""
        server = _Uvicorn(_config(self._settings, self._app, certificates))
        task = asyncio.create_task(server.serve([self._socket.dup()]))
        for old, _ in self._running:
            old.should_exit = True
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        if task.done():
            task.result()
        self._running = [(s, t) for s, t in self._running if not t.done()] + [(server, task)]


def application(settings: Settings, parts: DoorParts) -> ASGIApp:
    """The ASGI application of a server."""
    calls = HttpCalls(parts.checks, parts.metrics, parts.limits, parts.traces, settings.max_message_bytes)
    runtime = parts.runtime
    model = ServedModel(
        served_name(settings),
        runtime.context,
        int(time.time()),
        runtime.token_texts,
        runtime.token_spelling,
    )

    def judge(contract: str) -> ContractJudge:
        return ContractJudge(parts.runs, parts.waits, contract)

    routes = [
        *OpenAiApi(calls, parts.runs, parts.active, model).routes(),
        *litellm.LiteLlmGuardrail(calls, judge("litellm"), parts.active).routes(),
        *webhook.GuardrailWebhook(calls, judge("webhook")).routes(),
        *detectors.Detectors(calls, judge("detectors"), parts.active, parts.runtime).routes(),
    ]
    return app_of(routes, settings, parts)


def app_of(
    routes: Sequence[BaseRoute],
    settings: Settings,
    parts: DoorParts,
    address: str | None = None,
    *,
    any_host: bool = False,
) -> ASGIApp:
    """An application with these routes and `/health`, which refuses what a web page may send by a trick.

    `address` is where it listens, by default `http_listen`. `any_host`: somebody else has looked at the host that
    requests name.
    """

    async def health(_: Request) -> Response:
        return PlainTextResponse(
            "serving\n" if parts.serving() else "not serving\n", 200 if parts.serving() else 503
        )

    async def wrong(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        texts = {404: "there is nothing at this path", 405: "this path takes another method"}
        return _error(HttpError(error.status_code, texts.get(error.status_code, "the request is wrong")))

    app = Starlette(routes=[Route("/health", health), *routes], exception_handlers={HTTPException: wrong})
    app.router.redirect_slashes = False
    if any_host or parts.checks_callers or not is_loopback(address or settings.http_listen or ""):
        return app
    return HostCheck(app, tuple(host.strip() for host in settings.http_hosts.split(",")))


class HostCheck:
    """Refuses requests that name a host which is not this machine.

    A web page may make a browser send requests to a loopback address under a name of its own (DNS rebinding). Callers
    who authenticate need no such check: a browser has no token to send.
    """

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, {*_LOCAL, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or "*" in self._hosts or self._known(scope):
            await self._app(scope, receive, send)
            return
        text = "the header `host` names a machine that this server does not know; add it to the setting http_hosts"
        await _error(HttpError(421, text))(scope, receive, send)

    def _known(self, scope: Scope) -> bool:
        given = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
        host = given.rsplit(":", 1)[0] if not given.endswith("]") else given
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return host.lower() in self._hosts
        return True


def served_name(settings: Settings) -> str:
    """What the API calls the model: the setting, else what its pair calls it, its name on the hub or its folder's."""
    if settings.served_model_name:
        return settings.served_model_name
    if settings.model is None:
        return named(settings.pair).model
    path = Path(settings.model)
    return path.resolve().name if path.exists() else settings.model


def listening(address: str, setting: str = "http_listen") -> socket.socket:
    """A socket that listens on HOST:PORT, as a setting says. Raises ConfigurationError where that is not possible."""
    host, port = split_address(address)
    try:
        found = listening_socket(host, port, _BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"{setting}: cannot listen on {address}: {error.strerror}; give another address"
        ) from None
    found.setblocking(False)
    return found


def _literal(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _error(error: MonitorError) -> Response:
    found = answer(error, "")
    return JSONResponse(found.body, found.status, found.headers)


def _config(settings: Settings, app: ASGIApp, certificates: Certificates | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=_connection_class(settings),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=_BACKLOG,
        timeout_keep_alive=max(1, round(settings.idle_seconds)),
        h11_max_incomplete_event_size=settings.max_header_bytes,
        timeout_graceful_shutdown=max(1, round(settings.max_call_seconds)),
    )
    config.load()
    if certificates is not None:
        config.ssl = certificates.context(settings.tls_minimum)
    return config


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that leaves signals to the process that it runs in."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def _connection_class(settings: Settings) -> type[H11Protocol]:
    """Connections that are limited in number and in the time that their first request may take."""

    class Connection(H11Protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.abort()
                return
            security = transport.get_extra_info("ssl_object")
            if security is not None:
                self.app = _known_peer(self.app, _names(security))
            self.loop.call_later(settings.max_message_seconds, self._first_request)

        def _first_request(self) -> None:
            if self.cycle is None:
                self.transport.abort()

    return Connection


def _known_peer(app: Any, names: dict[str, list[bytes]]) -> ASGIApp:
    """The application, told who is at the other end of a connection."""

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        await app(dict(scope) | {PEER: names}, receive, send)

    return known


def _names(connection: ssl.SSLObject) -> dict[str, list[bytes]]:
    """TLS version and names in the client's certificate, under the keys that gRPC gives them."""
    certificate: Any = connection.getpeercert() or {}
    common = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    alternative = [value for _, value in certificate.get("subjectAltName", ())]
    return {
        "ssl_tls_version": [(connection.version() or "").encode()],
        "x509_common_name": [name.encode() for name in common],
        "x509_subject_alternative_name": [name.encode() for name in alternative],
    }
