"""The port that Prometheus scrapes. Knows HTTP; does not know what is measured.

`/metrics` in the text format or, for whoever asks for it, in OpenMetrics with exemplars; compressed for whoever
takes gzip. Everything else is 404.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from monitor.errors import ConfigurationError

PATH = "/metrics"
IDLE_SECONDS = 10.0
"""A client that sends nothing for so long is cut off."""

_POLL_SECONDS = 0.1
"""How soon the thread sees that it is to stop."""

OPENMETRICS = "application/openmetrics-text"
TEXT = "text/plain; version=0.0.4"

Environ = dict[str, Any]
Respond = Callable[..., Any]


class _Handler(WSGIRequestHandler):
    """Logs no requests, and does not wait for ever."""

    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line each."""


class _Server(ThreadingWSGIServer):
    """Binds without asking the name service who we are, which may take seconds."""

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are their own business."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class MetricsServer:
    """Serves `/metrics` of a registry from a thread of its own until `stop`."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    @classmethod
    def start(cls, registry: CollectorRegistry, host: str, port: int) -> MetricsServer:
        """Listen on `host:port`; port 0 takes a free one. ConfigurationError where that is not possible."""
        kind = _Server6 if ":" in host else _Server
        try:
            server = make_server(host, port, _application(registry), kind, handler_class=_Handler)
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; give another metrics_listen"
            ) from None
        thread = threading.Thread(
            target=server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )
        thread.start()
        return cls(server, thread)

    def stop(self) -> None:
        """Close the port and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _application(registry: CollectorRegistry) -> Callable[[Environ, Respond], Iterable[bytes]]:
    export = make_wsgi_app(registry)

    def application(environ: Environ, respond: Respond) -> Iterable[bytes]:
        if environ.get("PATH_INFO") != PATH:
            respond("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"there is only {PATH} here\n".encode()]
        # The library takes the first type that it knows and any version that is asked for.
        accept = negotiated(environ.get("HTTP_ACCEPT", ""))
        chosen = environ | {"HTTP_ACCEPT": accept, "QUERY_STRING": ""}
        if _weight(environ.get("HTTP_ACCEPT_ENCODING", ""), "gzip") <= 0:
            chosen["HTTP_ACCEPT_ENCODING"] = ""
        found: Iterable[bytes] = export(chosen, respond)
        return found

    return application


def negotiated(accept: str) -> str:
    """The format for an Accept header: OpenMetrics where it is wanted at least as much as plain text."""
    wanted = _weight(accept, OPENMETRICS)
    if wanted > 0 and wanted >= _weight(accept, "text/plain"):
        return f"{OPENMETRICS}; version=1.0.0"
    return TEXT


def _weight(header: str, name: str) -> float:
    """The highest quality value that a header gives to a name; 0 where it is not named or cannot be read."""
    best = 0.0
    for item in header.split(","):
        value, *parameters = (part.strip().lower() for part in item.split(";"))
        if value == name:
            best = max(best, _quality(parameters))
    return best


def _quality(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
