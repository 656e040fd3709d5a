"""The port that Prometheus scrapes. Knows HTTP addresses; does not know what is measured."""

from __future__ import annotations

import threading
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server

from monitor.errors import ConfigurationError


class MetricsServer:
    """Serves `/metrics` of a registry from a thread of its own until `stop`."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.port: int = server.server_port

    @classmethod
    def start(cls, registry: CollectorRegistry, host: str, port: int) -> MetricsServer:
        """Listen on `host:port`; port 0 takes a free one. ConfigurationError where that is not possible."""
        try:
            return cls(*start_http_server(port, host, registry))
        except OSError as error:
            raise ConfigurationError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}; give another metrics_listen"
            ) from None

    def stop(self) -> None:
        """Close the port and wait for the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
