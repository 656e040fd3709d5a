"""What waits and what runs, read at each scrape.

Knows queues by name and how to ask them. Does not know engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.telemetry.metrics.families import Families


@dataclass(frozen=True, slots=True)
class _Queue:
    limit: int
    queued: Callable[[], int]
    running: Callable[[], int]


class QueueCollector(Collector):
    """Asks every queue for its depth and its running requests. Any thread."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._passes: Callable[[], int] = int
        self._serving: Callable[[], bool] = bool

    def queue(self, name: str, limit: int, queued: Callable[[], int], running: Callable[[], int]) -> None:
        """Show a queue that holds at most `limit` requests that wait."""
        self._queues = {**self._queues, name: _Queue(limit, queued, running)}

    def passes(self, passes: Callable[[], int]) -> None:
        """Show the number of forward passes since the start."""
        self._passes = passes

    def serving(self, serving: Callable[[], bool]) -> None:
        """Show whether callers are told that this server serves."""
        self._serving = serving

    def describe(self) -> Iterator[Metric]:
        """Names only, so that registering asks nobody."""
        yield from _queue_families()

    def collect(self) -> Iterator[Metric]:
        """Depth, limit and running requests of every queue; passes of the engine; health."""
        depth, limit, running, passes, serving = _queue_families()
        for name, queue in self._queues.items():
            depth.add_metric([name], queue.queued())
            limit.add_metric([name], queue.limit)
            running.add_metric([name], queue.running())
        passes.add_metric([], self._passes())
        serving.add_metric([], float(self._serving()))
        yield from (depth, limit, running, passes, serving)


def _queue_families() -> tuple[
    GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily, CounterMetricFamily, GaugeMetricFamily
]:
    return (
        GaugeMetricFamily(
            "sae_monitor_queue_depth", "Requests that wait for the engine or the scorer.", labels=["queue"]
        ),
        GaugeMetricFamily(
            "sae_monitor_queue_limit", "Requests that may wait; one more is refused.", labels=["queue"]
        ),
        GaugeMetricFamily(
            "sae_monitor_running", "Requests that the engine or the scorer is running.", labels=["queue"]
        ),
        CounterMetricFamily("sae_monitor_engine_passes", "Forward passes of the engine."),
        GaugeMetricFamily("sae_monitor_serving", "1 where the health service says SERVING."),
    )


class Sessions(Protocol):
    """Who knows; implemented by `monitor.policy`."""

    @property
    def evicted(self) -> Mapping[str, int]:
        """Conversations that were dropped since the start, by reason."""

    @property
    def returned(self) -> int:
        """Conversations that came back after they had been dropped."""

    def __len__(self) -> int:
        """Conversations that are kept."""


class SessionCollector(Collector):
    """Read at each scrape."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """Kept, dropped by reason, and come back."""
        kept = GaugeMetricFamily("sae_monitor_sessions", "Conversations whose scores are kept.")
        kept.add_metric([], len(self._sessions))
        yield kept
        evicted = CounterMetricFamily(
            "sae_monitor_sessions_evicted",
            "Conversations that were dropped, for want of room (size) or after their time (ttl).",
            labels=["reason"],
        )
        for reason, number in self._sessions.evicted.items():
            evicted.add_metric([reason], number)
        yield evicted
        returned = CounterMetricFamily(
            "sae_monitor_sessions_returned",
            "Conversations that came back after they had been dropped; their verdicts are UNKNOWN.",
        )
        returned.add_metric([], self._sessions.returned)
        yield returned


class HealthMetrics:
    """Every method may be called from any thread. NaN stands for "not measured" or "not known"."""

    def __init__(self, families: Families) -> None:
        self._l0 = families.gauge("dictionary_l0", "Mean active features per token, as last measured.")
        self._l0_expected = families.gauge(
            "dictionary_l0_expected", "Mean active features per token over the dictionary's own corpus."
        )
        self._explained = families.gauge(
            "dictionary_explained_variance_ratio",
            "Share of the residual stream's variance that the dictionary explains, as last measured.",
        )
        self._explained_expected = families.gauge(
            "dictionary_explained_variance_expected_ratio",
            "Share of the variance that the dictionary's makers say it explains.",
        )
        self._outliers = families.gauge(
            "dictionary_norm_outliers_ratio",
            "Share of tokens whose residual is far longer than the median, as last measured.",
        )
        self._self_test = families.gauge(
            "self_test_passed", "1 where a check at load passed, 0 where it failed.", "check"
        )
        self._skipped = families.gauge(
            "self_test_skipped", "1 where the operator started without the self-test."
        )
        self.measured(math.nan, math.nan, math.nan)
        self.expected(None, None)

    def measured(self, l0: float, explained_variance: float, norm_outliers: float) -> None:
        """How well the dictionary does on what the model reads."""
        self._l0.set(l0)
        self._explained.set(explained_variance)
        self._outliers.set(norm_outliers)

    def expected(self, l0: float | None, explained_variance: float | None) -> None:
        """What the dictionary's own statistics and makers say; None where they say nothing."""
        self._l0_expected.set(math.nan if l0 is None else l0)
        self._explained_expected.set(math.nan if explained_variance is None else explained_variance)

    def skipped(self, skipped: bool) -> None:
        """Whether the self-test was left out."""
        self._skipped.set(float(skipped))

    def self_test(self, check: str, passed: bool) -> None:
        """The result of one check at load; `check` comes from a fixed set of short words."""
        self._self_test.labels(check).set(float(passed))
