"""Which server a command talks to: a running one, or one that this process starts for the command.

Knows how to choose. Does not know calls or answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

from monitor.cli.show.console import stderr_console
from monitor.client.client import Client, connect
from monitor.client.credentials import from_environment
from monitor.errors import ConfigurationError
from monitor.settings import load_settings, split_address


@contextmanager
def open_session(address: str | None, flags: Mapping[str, Any], timeout: float) -> Iterator[Client]:
    """A client of the server at `address`, or of one that runs in this process with `flags` as settings."""
    if address is not None:
        refuse_local_flags(flags)
        with connect(checked(address), timeout, identity=from_environment()) as client:
            yield client
        return
    with stderr_console().status("loading the model …") as status, local_server(flags) as server:
        status.stop()
        with connect(server.address, timeout) as client:
            yield client


def checked(address: str) -> str:
    """The address as given; `typer.BadParameter` where it is not one that can be called."""
    try:
        _, port = split_address(address)
    except ValueError as error:
        raise typer.BadParameter(f"{address!r}: write HOST:PORT, such as 127.0.0.1:50051") from error
    if port == 0:
        raise typer.BadParameter(f"{address!r}: port 0 is nobody's address")
    return address


def refuse_local_flags(flags: Mapping[str, Any]) -> None:
    """A running server has its own model; silently ignoring what was asked for would mislead."""
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None]
    if given:
        raise ConfigurationError(f"{', '.join(given)}: not with --connect, the server there has its own")


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
