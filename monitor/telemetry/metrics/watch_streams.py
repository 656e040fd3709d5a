"""Metrics of those who watch detections live. Knows Prometheus; does not know what they watch."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge


class WatchMeter:
    """Counts streams and what they missed. The registry is injected."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._streams = Gauge("sae_monitor_watch_streams", "WatchDetections streams.", registry=registry)
        self._missed = Counter(
            "sae_monitor_watch_missed_records",
            "Records that WatchDetections streams missed because they were read too slowly.",
            registry=registry,
        )

    def streams(self, count: int) -> None:
        """So many are open."""
        self._streams.set(count)

    def missed(self) -> None:
        """One of them was too slow for a record."""
        self._missed.inc()
