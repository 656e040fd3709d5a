"""Metrics of the decision log and of the WatchDetections streams."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry

from monitor.telemetry.metrics.families import Families

DROPS = ("queue_full", "disk_full", "error", "stopping", "removed")
"""Values of the label `cause` for lost records."""

ERRORS = ("write", "sync", "rotate", "delete", "disk_full", "other")
"""Values of the label `cause` for failed operations; one that is not listed counts as `other`."""

DISPLACED = ("removed", "moved", "truncated", "changed")
"""Values of the label `cause` for files that others did something to."""


class DecisionLogMetrics:
    """Metrics of the decision log. Every method may be called from any thread."""

    def __init__(self, families: Families) -> None:
        self._queued = families.gauge(
            "decision_log_queue_records", "Records that wait to be written to the decision log."
        )
        self._limit = families.gauge(
            "decision_log_queue_limit_records", "Records that may wait for the decision log."
        )
        self._written = families.counter("decision_log_records", "Records on disk in the decision log.")
        self._bytes = families.counter("decision_log_bytes", "Bytes written to the decision log.")
        self._dropped = families.counter(
            "decision_log_dropped", "Records that the decision log did not keep.", "cause"
        )
        self._errors = families.counter("decision_log_errors", "Failed writes of the decision log.", "cause")
        self._displaced = families.counter(
            "decision_log_displaced_files",
            "Files of the decision log that others removed, moved, cut or changed while they were written.",
            "cause",
        )
        self._commit = families.histogram(
            "decision_log_commit_seconds", "Time to write one group of records and to sync it to disk."
        )
        self._enabled = families.gauge("decision_log_enabled", "1 where decisions are logged.")
        for cause in DROPS:
            self._dropped.labels(cause)
        for cause in ERRORS:
            self._errors.labels(cause)
        for cause in DISPLACED:
            self._displaced.labels(cause)

    def enabled(self, queued: Callable[[], int], limit: int) -> None:
        """Show that decisions are logged. `queued` is called at each scrape; at most `limit` records may wait."""
        self._enabled.set(1)
        self._limit.set(limit)
        self._queued.set_function(queued)

    def committed(self, records: int, size: int, seconds: float) -> None:
        """Count records, `size` bytes together, that were written to disk in `seconds`."""
        self._written.inc(records)
        self._bytes.inc(size)
        self._commit.observe(seconds)

    def dropped(self, cause: str, records: int = 1) -> None:
        """Count lost records; `cause` is one of DROPS."""
        self._dropped.labels(cause if cause in DROPS else "error").inc(records)

    def failed(self, cause: str) -> None:
        """Count a failed write, sync, rotation or deletion; `cause` is one of ERRORS."""
        self._errors.labels(cause if cause in ERRORS else "other").inc()

    def displaced(self, cause: str, records: int) -> None:
        """Count a file that others took away. Where it was removed, its records are lost; `cause` is of DISPLACED."""
        self._displaced.labels(cause).inc()
        if cause == "removed":
            self.dropped("removed", records)


class WatchMeter:
    """Metrics of the WatchDetections streams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        families = Families(registry)
        self._streams = families.gauge("watch_streams", "WatchDetections streams.")
        self._missed = families.counter(
            "watch_missed_records",
            "Records that WatchDetections streams missed because they were read too slowly.",
        )

    def streams(self, count: int) -> None:
        """Set the number of open streams."""
        self._streams.set(count)

    def missed(self) -> None:
        """Count a record that a stream missed because its client was too slow."""
        self._missed.inc()
