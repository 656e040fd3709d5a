"""How a client connects: channel options, TLS, the token in the headers, and which failed calls are tried again."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import grpc

from monitor.errors import ConfigurationError

MAX_RESPONSE_BYTES = 64 * 1024 * 1024
"""Largest answer that is accepted. The readings of every token of a long context exceed gRPC's default of 4 MiB."""
MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""Largest request that gRPC buffers for another try: the default limit of servers. gRPC's own default is 256 KiB."""
MOST_RETRIES = 4
"""Maximum number of retries: gRPC makes at most five attempts."""

Pem = bytes | str | PathLike[str]
"""The content of a PEM file, or the path of one."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A server's address and how this client identifies itself there. Raises ConfigurationError for invalid values."""

    address: str
    """`host:port`, or any other name that gRPC resolves, such as `dns:///name:port`."""
    token: str = ""
    ca: Pem | None = None
    certificate: Pem | None = None
    key: Pem | None = None
    tls: bool = False
    retries: int = 3

    def __post_init__(self) -> None:
        if not self.token.isascii() or (self.token and not self.token.isprintable()):
            raise ConfigurationError("the token for the server is not one line of ASCII")
        if (self.certificate is None) != (self.key is None):
            raise ConfigurationError("give both `certificate` and `key`, or neither")
        if not 0 <= self.retries <= MOST_RETRIES:
            raise ConfigurationError(f"`retries` is {self.retries}; give 0 to {MOST_RETRIES}")

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Headers that are sent with every call."""
        return (("authorization", f"Bearer {self.token}"),) if self.token else ()

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials for TLS; None where calls travel unencrypted."""
        if not self.tls and self.ca is None and self.certificate is None:
            return None
        parts = (self.ca, self.key, self.certificate)
        return grpc.ssl_channel_credentials(*(_content(part) if part is not None else None for part in parts))

    def options(self) -> list[tuple[str, Any]]:
        """Channel options: large answers, retries, and no proxy for a server on the same machine."""
        found: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
            # Shared with other channels of this process, a connection could be refused because one failed before.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if self.retries:
            found.append(("grpc.service_config", json.dumps(service_config(self.retries))))
            found.append(("grpc.per_rpc_retry_buffer_size", MAX_REQUEST_BYTES))
        host = self.address.rpartition(":")[0].strip("[]")
        if host in ("localhost", "::1") or host.startswith("127."):
            found.append(("grpc.enable_http_proxy", 0))
        return found


def service_config(retries: int) -> dict[str, Any]:
    """The service config for gRPC: which failed calls are tried again, and after how long.

    Calls are tried again where the server refused them (UNAVAILABLE or RESOURCE_EXHAUSTED) before the first byte of an
    answer. Where the server says how long to wait (`grpc-retry-pushback-ms`), gRPC waits that long instead.
    """
    policy = {
        "maxAttempts": retries + 1,
        "initialBackoff": "0.2s",
        "maxBackoff": "5s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
    }
    names: Sequence[dict[str, str]] = [
        {"service": "monitor.v1.MonitorService"},
        {"service": "grpc.health.v1.Health"},
    ]
    return {"methodConfig": [{"name": names, "retryPolicy": policy}]}


def await_end_of_watch(channel: grpc.Channel, seconds: float = 1.0) -> None:
    """Wait until grpcio has noticed that nobody asks for the state of `channel` any more; at most `seconds`.

    Its thread notices within 0.2 s. If the channel is closed in the moment of the last `unsubscribe`, the thread may
    end with a ValueError, whose traceback is printed.
    """
    watch = getattr(channel, "_connectivity_state", None)
    end = time.monotonic() + seconds
    while getattr(watch, "polling", False) and time.monotonic() < end:
        time.sleep(0.01)


def _content(pem: Pem) -> bytes:
    if isinstance(pem, bytes):
        return pem
    try:
        # gRPC finds no certificate behind a byte order mark.
        return Path(pem).read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise ConfigurationError(f"{pem}: cannot be read: {error.strerror}") from None
