"""The HTTP port that Prometheus scrapes.

It serves `/metrics`: in OpenMetrics with exemplars to clients whose `Accept` header names it, in the text format to all
others, compressed for clients that take gzip. Every other path is 404.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

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

_EVERYWHERE = ("0.0.0.0", "::")
"""Hosts that stand for all addresses of this machine."""

Environ = dict[str, Any]
Respond = Callable[..., Any]


class _Handler(WSGIRequestHandler):
    """Handles one connection with a time limit, and logs no requests."""

    timeout = IDLE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a line for each scrape would be of no use."""


class _Server(ThreadingWSGIServer):
    """A WSGI server on a socket that listens already."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(listening.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket, self.address_family = listening, listening.family
        host, port = listening.getsockname()[:2]
        self.server_name, self.server_port = str(host), int(port)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of a connection, such as a client that hangs up."""


def listening_socket(host: str, port: int, backlog: int = 128) -> socket.socket:
    """A socket that listens on a host's port; port 0 takes a free one. Raises OSError where that is not possible.

    0.0.0.0 and :: both stand for all addresses, those of IPv4 and of IPv6, as they do for a gRPC port: a machine may
    have only one kind. Of a name's addresses the first that this machine has is taken, IPv4 before IPv6.
    """
    if host in _EVERYWHERE and socket.has_dualstack_ipv6():
        return _prompt(
            socket.create_server(("::", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True)
        )
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    failed = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    for family, *_, address in sorted(found, key=lambda info: info[0] != socket.AF_INET):
        try:
            return _prompt(socket.create_server(address, family=family, backlog=backlog))
        except OSError as error:
            failed = error
    raise failed


def _prompt(listening: socket.socket) -> socket.socket:
    """A socket whose connections send what is written at once, as they inherit it.

    Otherwise the first piece of a stream waits for its caller's system to acknowledge the headers before it, which
    takes 40 ms on Linux. asyncio asks for this by itself only where a socket was made for TCP by number.
    """
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


class MetricsServer:
    """Serves `/metrics` of a registry from a thread of its own until `stop`."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    @classmethod
    def start(cls, registry: CollectorRegistry, host: str, port: int) -> MetricsServer:
        """Listen on `host:port`; port 0 takes a free one. Raises ConfigurationError where that is not possible."""
        try:
            server = _Server(listening_socket(host, port))
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; give another metrics_listen"
            ) from None
        server.set_app(_application(registry))
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
