"""How this command line shows a server who it is: a token in the headers, a certificate of its own, over TLS.

Knows SAE_MONITOR_CLIENT_… and gRPC's channels. Does not know calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from monitor.errors import ConfigurationError
from monitor.settings import ClientSettings


class Identity(NamedTuple):
    """What a server is shown; nothing at all by default."""

    token: str = ""
    credentials: grpc.ChannelCredentials | None = None
    """None calls without TLS."""

    def channel(self, address: str, options: Sequence[tuple[str, int]]) -> grpc.Channel:
        """A channel; nothing is sent yet."""
        if self.credentials is None:
            return grpc.insecure_channel(address, options=options)
        return grpc.secure_channel(address, self.credentials, options=options)

    def signed(self, channel: grpc.Channel) -> grpc.Channel:
        """The channel with the token in the headers of every call."""
        return channel if not self.token else grpc.intercept_channel(channel, _Bearer(self.token))


NOBODY = Identity()


def from_environment() -> Identity:
    """The identity that SAE_MONITOR_CLIENT_… describes. ConfigurationError where a file cannot be used."""
    settings = ClientSettings()
    if settings.token is not None and settings.token_file is not None:
        raise ConfigurationError(
            "set SAE_MONITOR_CLIENT_TOKEN or SAE_MONITOR_CLIENT_TOKEN_FILE, and not both"
        )
    token = settings.token.get_secret_value() if settings.token is not None else ""
    if settings.token_file is not None:
        token = _read(settings.token_file).decode("ascii", "replace").strip()
    if not token.isascii() or not token.isprintable():
        raise ConfigurationError("the token for the server is not one line of ASCII")
    return Identity(token, _credentials(settings))


def _credentials(settings: ClientSettings) -> grpc.ChannelCredentials | None:
    pair = (settings.certificate, settings.key)
    if settings.ca is None:
        if pair != (None, None):
            raise ConfigurationError(
                "a client's certificate needs SAE_MONITOR_CLIENT_CA, the server's authority"
            )
        return None
    if (settings.certificate is None) != (settings.key is None):
        raise ConfigurationError(
            "set both SAE_MONITOR_CLIENT_CERTIFICATE and SAE_MONITOR_CLIENT_KEY, or neither"
        )
    certificate, key = (_read(path) if path is not None else None for path in pair)
    return grpc.ssl_channel_credentials(_read(settings.ca), key, certificate)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Adds the header."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_header(details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return continuation(self._with_header(details), request)

    def _with_header(self, details: Any) -> Any:
        return details._replace(metadata=[*(details.metadata or ()), self._header])
