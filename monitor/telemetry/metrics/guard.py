"""Metrics of a guard: how long text waits for its score, what left before it had one, and what fails behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from monitor.records import Phase
from monitor.telemetry.metrics.families import Families

UPSTREAM_FAULTS = ("unreachable", "timeout", "broken", "unreadable", "status")
"""Values of the label `fault`: no connection, silence, an answer without its end, one that is none, an error."""
MODES = ("hold", "sample", "end")
"""Values of the label `mode`: when streamed text may leave."""


class GuardMetrics:
    """Metrics of a guard, in the given registry, or in a new one where none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        families = Families(registry or CollectorRegistry())
        self._wait = families.histogram(
            "guard_wait_seconds", "Time for which text waited to be scored.", "phase"
        )
        self._faults = families.counter(
            "guard_upstream_faults", "Requests that the upstream server did not answer well.", "fault"
        )
        self._unread = families.counter(
            "guard_unread_characters", "Characters of answers that left before they were scored.", "mode"
        )
        self._refused = families.counter(
            "guard_blocked_prompts",
            "Requests that the upstream server never saw, because a policy blocks them.",
        )
        for phase in Phase:
            self._wait.labels(phase.value)
        for fault in UPSTREAM_FAULTS:
            self._faults.labels(fault)
        for mode in MODES:
            self._unread.labels(mode)

    @contextmanager
    def waiting(self, phase: Phase) -> Iterator[None]:
        """Measure the time of the block, in which text of a phase waits for its score."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._wait.labels(phase.value).observe(time.perf_counter() - begun)

    def fault(self, fault: str) -> None:
        """Count a fault of the upstream server; one of UPSTREAM_FAULTS."""
        self._faults.labels(fault).inc()

    def left_unread(self, mode: str, characters: int) -> None:
        """Count characters that left before they were scored."""
        self._unread.labels(mode).inc(characters)

    def blocked(self) -> None:
        """Count a request whose prompt a policy blocks."""
        self._refused.inc()
