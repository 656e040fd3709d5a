"""The HTTP port that Prometheus scrapes.

It serves `/metrics`: in OpenMetrics with exemplars to clients whose `Accept` header names it, in the text format to all
others, compressed for clients that take gzip. Every other path is 404.
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
"""Longest time, in seconds, to wait for a client to send its request; after that the connection is closed."""

_POLL_SECONDS = 0.1
"""Seconds between two checks of the thread whether it should stop."""

OPENMETRICS = "application/openmetrics-text"
"""Media type of the OpenMetrics format. Without a version in the request the library writes version 1.0.0."""

Environ = dict[str, Any]
Respond = Callable[..., Any]


class _Handler(WSGIRequestHandler):
    """Handles one connection with a time limit, and logs no requests."""

    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a line for each scrape would be of no use."""


class _Server(ThreadingWSGIServer):
    """Binds its port without resolving the host's own name, which may take seconds."""

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of a connection, such as a client that hangs up."""


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
        """Listen on `host:port`; port 0 takes a free one. Raises ConfigurationError where that is not possible."""
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
        # The library fails on a version that is no number, and claims to write any other that is asked for.
        wanted = OPENMETRICS in environ.get("HTTP_ACCEPT", "")
        found: Iterable[bytes] = export(environ | {"HTTP_ACCEPT": OPENMETRICS if wanted else ""}, respond)
        return found

    return application
