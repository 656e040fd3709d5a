"""The server that a command talks to: a running one, or one that this process starts for the command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import typer

from monitor import utf8
from monitor.cli.show.console import stderr_console
from monitor.client import Client, connect
from monitor.errors import ConfigurationError
from monitor.settings import ClientSettings, load_client_settings, load_settings, split_address


@contextmanager
def open_session(
    address: str | None, flags: Mapping[str, Any], timeout: float, *, generates: bool = True
) -> Iterator[Client]:
    """A client of the server at `address`, or, if that is None, of one started in this process with `flags`.

    Where the command only scores, `generates` is False: the own server then needs no key-value cache.
    """
    if address is not None:
        refuse_local_flags(flags)
        with connected(address, timeout) as client:
            yield client
        return
    own = flags if generates else {**flags, "max_running": 0}
    with stderr_console().status("loading the model …") as status, local_server(own) as server:
        status.stop()
        with connect(server.address, timeout=timeout) as client:
            yield client


def connected(address: str, timeout: float | None = None) -> Client:
    """A client of the server at `address`, with token and certificates from the variables SAE_MONITOR_CLIENT_….

    Raises ConfigurationError where those cannot be used, and `Unreachable` where no server answers.
    """
    settings = load_client_settings()
    own = (settings.certificate is not None, settings.key is not None)
    if settings.token is not None and settings.token_file is not None:
        raise ConfigurationError(
            "set SAE_MONITOR_CLIENT_TOKEN or SAE_MONITOR_CLIENT_TOKEN_FILE, and not both"
        )
    if any(own) and settings.ca is None:
        raise ConfigurationError("a client's certificate needs SAE_MONITOR_CLIENT_CA, the server's authority")
    if any(own) and not all(own):
        raise ConfigurationError(
            "set both SAE_MONITOR_CLIENT_CERTIFICATE and SAE_MONITOR_CLIENT_KEY, or neither"
        )
    return connect(
        checked(address),
        token=_token(settings),
        ca=settings.ca,
        certificate=settings.certificate,
        key=settings.key,
        timeout=timeout,
    )


def _token(settings: ClientSettings) -> str:
    if settings.token is not None:
        return settings.token.get_secret_value()
    if settings.token_file is None:
        return ""
    try:
        return utf8.decode(settings.token_file.read_bytes()).strip()
    except OSError as error:
        raise ConfigurationError(f"{settings.token_file}: cannot be read: {error.strerror}") from None
    except utf8.NotUtf8 as error:  # Without its text: it says which byte is wrong.
        raise ConfigurationError(f"{settings.token_file}: this is not the file of a token") from error


def checked(address: str) -> str:
    """Return the address. Raises `typer.BadParameter` unless it is HOST:PORT with a port above 0."""
    try:
        _, port = split_address(address)
    except ValueError as error:
        raise typer.BadParameter(f"{address!r}: write HOST:PORT, such as 127.0.0.1:50051") from error
    if port == 0:
        raise typer.BadParameter(f"{address!r}: port 0 is nobody's address")
    return address


def refuse_local_flags(flags: Mapping[str, Any]) -> None:
    """Raise ConfigurationError where flags of a local model were given together with --connect."""
    given = [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is not None]
    if given:
        raise ConfigurationError(f"{', '.join(given)}: not with --connect, the server there has its own")


FREE_PORT = "127.0.0.1:0"
_OF_SERVERS = ("callers", "tls_certificate", "tls_key", "tls_client_ca")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server's two ports, as `host:port`."""

    address: str
    """Address of the gRPC port."""
    metrics_address: str
    """Address of the HTTP port that serves `/metrics`."""


@contextmanager
def local_server(flags: Mapping[str, Any]) -> Iterator[Endpoint]:
    """Run a server on free ports of this process with these settings. Raises ConfigurationError if it cannot start."""
    chosen = load_settings({**flags, "listen": FREE_PORT, "metrics_listen": FREE_PORT, "decision_log": "off"})
    # Nobody else calls it, and the environment of a container may describe the server that runs beside this command.
    settings = chosen.model_copy(update={**dict.fromkeys(_OF_SERVERS), "caller_clamps": "any"})
    from monitor.rpc.process.user import name_user

    name_user()
    from monitor.rpc.server import in_background
    from monitor.telemetry.logs import configure

    configure("warning", "console")
    with in_background(settings) as addresses:
        yield Endpoint(addresses.grpc, addresses.metrics)
