"""Authentication: which caller a call comes from, by the token in its headers or by its client certificate.

Every refusal has the same text, so that a caller cannot learn which part was wrong. The reason is a label of the metric
`refused_callers`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from monitor.errors import Unauthenticated
from monitor.rpc.access import callers
from monitor.rpc.access.callers import CallerEntry
from monitor.rpc.access.roles import ANYBODY, Caller
from monitor.rpc.access.watched_files import WatchedFiles
from monitor.settings import Settings
from monitor.telemetry.metrics.security import SecurityMetrics

REFUSED = "send the header `authorization: Bearer TOKEN` with a token that this server knows"
_LONGEST_TOKEN = 512
_SCHEME = "bearer "


class Peer(Protocol):
    """The part of gRPC's call context that is available before the message is read."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """The headers of the call."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """The TLS version and the names in a verified client certificate."""


class Authenticator:
    """Finds the caller of a call in the callers file, which is read again when it changes."""

    def __init__(self, settings: Settings, metrics: SecurityMetrics) -> None:
        self._metrics = metrics
        self._strict_tls = settings.tls_minimum == "1.3" and settings.tls_certificate is not None
        self._by_certificate = settings.tls_client_ca is not None
        self._file: WatchedFiles[Sequence[CallerEntry]] | None = None
        path = settings.callers
        if path is not None:
            self._file = WatchedFiles("callers", [path], lambda: self._read(path), metrics.read)

    def _read(self, path: Path) -> Sequence[CallerEntry]:
        entries = callers.read_callers(path)
        self._metrics.callers({entry.caller.name for entry in entries})
        return entries

    @property
    def asks(self) -> bool:
        """True where a callers file is set, so that callers must authenticate."""
        return self._file is not None

    def caller(self, peer: Peer) -> Caller:
        """The caller of a call; ANYBODY where no callers file is set. Raises Unauthenticated."""
        if self._strict_tls and peer.auth_context().get("ssl_tls_version") != [b"TLSv1.3"]:
            raise self._refusal("tls_version")
        if self._file is None:
            return ANYBODY
        entries, token = self._file.value(), self._token(peer)
        if token is not None:
            found = callers.find_token(entries, token)
        elif self._by_certificate:
            found = callers.find_certificate(entries, _names(peer))
        else:
            raise self._refusal("no_token")
        if found is None:
            raise self._refusal("no_certificate" if token is None else "unknown_token")
        if found.expires is not None and found.expires < time.time():
            raise self._refusal("expired_token")
        return found.caller

    def _token(self, peer: Peer) -> str | None:
        given = [value for key, value in peer.invocation_metadata() or () if key == "authorization"]
        if not given:
            return None
        value = given[0]
        if len(given) > 1 or not isinstance(value, str) or not value[: len(_SCHEME)].lower() == _SCHEME:
            raise self._refusal("malformed")
        token = value[len(_SCHEME) :].strip()
        if not 0 < len(token) <= _LONGEST_TOKEN or not token.isascii():
            raise self._refusal("malformed")
        return token

    def _refusal(self, reason: str) -> Unauthenticated:
        self._metrics.refused(reason)
        return Unauthenticated(REFUSED)


def _names(peer: Peer) -> list[str]:
    """Common name and alternative names of the verified client certificate; empty without one."""
    context = peer.auth_context()
    found = [*context.get("x509_common_name", ()), *context.get("x509_subject_alternative_name", ())]
    return [name.decode("utf-8", "replace") for name in found]
