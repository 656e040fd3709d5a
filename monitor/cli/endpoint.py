"""Where a server listens. Nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server's two ports, as `host:port`."""

    address: str
    """gRPC."""
    metrics_address: str
    """HTTP, `/metrics`."""
