"""A server in this process, for one command: on free loopback ports, gone when the command is done.

Knows which settings such a server overrides. Does not know calls. The server itself, with torch and all, is
imported when it is started.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from monitor.settings import load_settings

FREE_PORT = "127.0.0.1:0"
_OF_SERVERS = ("callers", "tls_certificate", "tls_key", "tls_client_ca")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server's two ports, as `host:port`."""

    address: str
    """gRPC."""
    metrics_address: str
    """HTTP, `/metrics`."""


@contextmanager
def local_server(flags: Mapping[str, Any]) -> Iterator[Endpoint]:
    """A server with these settings (None is "not given"); ConfigurationError where it cannot start."""
    chosen = load_settings({**flags, "listen": FREE_PORT, "metrics_listen": FREE_PORT, "decision_log": "off"})
    # Nobody else calls it, and the environment of a container may describe the server that runs beside this command.
    settings = chosen.model_copy(update={**dict.fromkeys(_OF_SERVERS), "caller_clamps": "any"})
    from monitor.rpc.server import in_background
    from monitor.telemetry.logs import configure

    configure("warning", "console")
    with in_background(settings) as addresses:
        yield Endpoint(addresses.grpc, addresses.metrics)
