"""Metrics of access: refused calls, calls by caller, certificates, reloaded files, and memory.

Label values are the reasons listed here, and the names in the callers file.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry

from monitor.telemetry.metrics.families import Families

REFUSALS = (
    "no_token",
    "malformed",
    "unknown_token",
    "expired_token",
    "no_certificate",
    "tls_version",
    "role",
)
"""Values of the label `reason`: why a caller was refused."""

FILES = ("tls", "callers")
"""Values of the label `file`: files that are read again when they change."""


class SecurityMetrics:
    """Metrics of access, in the given registry, or in a new one where none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        families = Families(registry or CollectorRegistry())
        self._refused = families.counter(
            "refused_callers",
            "Calls refused because their caller was not authenticated or lacks the role.",
            "reason",
        )
        self._calls = families.counter(
            "caller_calls",
            "Calls that began, by caller; the label is empty where callers are not authenticated.",
            "caller",
        )
        self._expiry = families.gauge(
            "tls_certificate_expiry_timestamp_seconds", "When the first certificate of a file ends.", "file"
        )
        self._loaded = families.gauge(
            "access_last_reload_success",
            "1 where the last reading of certificates or callers worked; the last good ones stay in use.",
            "file",
        )
        self._loaded_at = families.gauge(
            "access_last_reload_success_timestamp_seconds",
            "When certificates or callers were last read with success.",
            "file",
        )
        self._memory = families.gauge(
            "memory_used_ratio",
            "Memory of this process as a share of what it may use; admission ends at the watermark.",
        )
        for reason in REFUSALS:
            self._refused.labels(reason)
        self._calls.labels("")

    def callers(self, names: Iterable[str]) -> None:
        """Create the label sets of these callers."""
        for name in names:
            self._calls.labels(name)

    def refused(self, reason: str) -> None:
        """Count a refused call; `reason` is one of REFUSALS."""
        self._refused.labels(reason).inc()

    def began(self, caller: str) -> None:
        """Count a call of this caller that began."""
        self._calls.labels(caller).inc()

    def expires(self, file: str, when: float) -> None:
        """Set when the first certificate in `certificate` or `client_ca` expires, in seconds since 1970."""
        self._expiry.labels(file).set(when)

    def read(self, file: str, worked: bool) -> None:
        """Set whether the last reading of one of FILES worked."""
        self._loaded.labels(file).set(1 if worked else 0)
        if worked:
            self._loaded_at.labels(file).set(time.time())

    def memory(self, used_ratio: Callable[[], float]) -> None:
        """Read the share of memory in use from this function at each scrape."""
        self._memory.set_function(used_ratio)
