"""Settings of who may call, from where, how much at once and for how long; part of `monitor.settings.Settings`.

Knows names, defaults and bounds. Does not know what the values are used for, and opens none of the files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0, le=86_400)]
Count = Annotated[int, Field(ge=1)]


class AccessSettings(BaseSettings):
    """The part of the settings that keeps strangers and floods out."""

    callers: Path | None = None
    """File of callers: one JSON object per line with name, roles and the hash of a token. None asks nobody who they
    are, which is refused beyond this machine. `sae-monitor token new NAME` writes lines for it.
    """

    insecure_listen: bool = False
    """Listen beyond this machine although nobody has to say who they are, or although tokens travel unencrypted."""

    tls_certificate: Path | None = None
    """PEM file of the server's certificate and the chain below the root. Read again whenever it changes."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key, without a password."""

    tls_client_ca: Path | None = None
    """PEM file of authorities; only clients with a certificate of one of them may connect."""

    tls_minimum: Literal["1.2", "1.3"] = "1.2"
    """Oldest version of TLS that calls are taken over."""

    max_calls_per_caller: Count | None = None
    """Calls that one named caller may have in progress. None is half of max_concurrent_calls."""

    max_tokens_per_caller: Count | None = None
    """Tokens of prompts and answers that one named caller may have in progress. None sets no limit."""

    max_call_seconds: Seconds = 600.0
    """Longest call, whatever deadline its caller gives."""

    max_message_seconds: Seconds = 10.0
    """Longest time from the beginning of a call until its message is there."""

    max_header_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 16 << 10
    """Headers of a call, as HTTP/2 counts them; more is refused with RESOURCE_EXHAUSTED."""

    max_connections: Count = 1024
    """Open connections; one more is closed at once."""

    max_calls_per_connection: Count = 1024
    """Calls in progress on one connection; further ones wait in the client."""

    max_connection_seconds: Seconds = 3600.0
    """Age at which a connection is closed; its calls get max_call_seconds to finish, and clients connect again."""

    handshake_seconds: Seconds = 10.0
    """Longest time until a new connection has said that it speaks HTTP/2 (and TLS, where that is asked for)."""

    idle_seconds: Seconds = 300.0
    """A connection without calls is closed after this time."""

    keepalive_seconds: Seconds = 30.0
    """How often silent connections are asked for a sign of life; half of this time without one closes them."""

    min_ping_seconds: Seconds = 10.0
    """A client that pings more often than this is disconnected."""

    memory_limit_bytes: Count | None = None
    """Memory that this process may use. None is the limit of its control group, or the machine's memory."""

    memory_watermark: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of that memory beyond which new calls are refused with RESOURCE_EXHAUSTED."""


class ClientSettings(BaseSettings):
    """Who this command line is to servers that it connects to; from the environment only, so that no token stands
    in a list of processes.
    """

    model_config = SettingsConfigDict(env_prefix="SAE_MONITOR_CLIENT_", frozen=True, env_ignore_empty=True)

    token: SecretStr | None = None
    """Sent as `authorization: Bearer …`."""

    token_file: Path | None = None
    """File that holds the token and nothing else."""

    ca: Path | None = None
    """PEM file of authorities that a server's certificate is checked against. Given, calls go over TLS."""

    certificate: Path | None = None
    """PEM file of this client's own certificate, for servers that ask for one."""

    key: Path | None = None
    """PEM file of that certificate's key."""
