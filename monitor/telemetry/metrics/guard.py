"""Metrics of text that waits for its score: how long, what left before it had one, and what fails behind a guard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from prometheus_client import CollectorRegistry

from monitor.records import Holding, Phase
from monitor.telemetry.metrics.families import Families

UPSTREAM_FAULTS = ("unreachable", "timeout", "broken", "unreadable", "status")
"""Values of the label `fault`: no connection, silence, an answer without its end, one that is none, an error."""
MODES = tuple(holding.value for holding in Holding)
"""Values of the label `mode`: when streamed text may leave."""
UNREAD = ("refused", "passed", "allowed")
"""Values of the label `result` of requests that are not read: a policy is closed, all are open, or the operator lets
their path through."""
CONTRACTS = ("guard", "envoy", "score_stream", "litellm", "webhook", "detectors")
"""Values of the label `contract`: through which door text comes that another server is asked or writes."""
WaitResult = Literal["passed", "blocked", "not_scored"]
RESULTS: tuple[WaitResult, ...] = ("passed", "blocked", "not_scored")
"""Values of the label `result`: what became of text that waited. All policies read it at once, in one pass."""


class WaitMetrics:
    """Metrics of all contracts of a server, in the given registry, or in a new one where none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        families = Families(registry or CollectorRegistry())
        self._wait = families.histogram(
            "guard_wait_seconds",
            "Time for which text of another server waited to be scored.",
            "contract",
            "phase",
            "result",
        )
        self._unread = families.counter(
            "guard_unread_characters",
            "Characters of answers that left before they were scored.",
            "contract",
            "mode",
        )

    def serves(self, *contracts: str) -> None:
        """Create the label sets of contracts that this server serves; of CONTRACTS."""
        for contract in contracts:
            for phase in Phase:
                for result in RESULTS:
                    self._wait.labels(contract, phase.value, result)
            for mode in MODES:
                self._unread.labels(contract, mode)

    @contextmanager
    def waiting(self, contract: str, phase: Phase, result: Callable[[], WaitResult]) -> Iterator[None]:
        """Measure the time of the block, in which text of a phase waits; `result` says afterwards what became of it."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._wait.labels(contract, phase.value, result()).observe(time.perf_counter() - begun)

    def left_unread(self, contract: str, mode: str, characters: int) -> None:
        """Count characters that left before they were scored."""
        self._unread.labels(contract, mode).inc(characters)


class GuardMetrics:
    """Metrics of a guard, in the given registry, or in a new one where none is given."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        families = Families(registry or CollectorRegistry())
        self._faults = families.counter(
            "guard_upstream_faults", "Requests that the upstream server did not answer well.", "fault"
        )
        self._refused = families.counter(
            "guard_blocked_prompts",
            "Requests that the upstream server never saw, because a policy blocks them.",
        )
        self._unread = families.counter(
            "guard_unread_requests",
            "Requests that hold text which is not read, by what became of them.",
            "result",
        )
        for fault in UPSTREAM_FAULTS:
            self._faults.labels(fault)
        for result in UNREAD:
            self._unread.labels(result)

    def fault(self, fault: str) -> None:
        """Count a fault of the upstream server; one of UPSTREAM_FAULTS."""
        self._faults.labels(fault).inc()

    def blocked(self) -> None:
        """Count a request whose prompt a policy blocks."""
        self._refused.inc()

    def unread(self, result: str) -> None:
        """Count a request that is not read; `result` is one of UNREAD."""
        self._unread.labels(result).inc()
