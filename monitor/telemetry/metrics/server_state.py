"""Metrics of a server's state: its queues, the conversations that it keeps, and the health of its dictionary.

Queues, conversations and lost lines of the log are read at each scrape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.telemetry.metrics.families import NAMESPACE, Families


@dataclass(frozen=True, slots=True)
class _Queue:
    """How to read one queue."""

    limit: int
    queued: Callable[[], int]
    running: Callable[[], int]


class QueueCollector(Collector):
    """Reads the queues, the number of passes and the health status at each scrape. Any thread."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self._passes: Callable[[], int] = int
        self._serving: Callable[[], bool] = bool
        self._cache: Callable[[], float] = float

    def queue(self, name: str, limit: int, queued: Callable[[], int], running: Callable[[], int]) -> None:
        """Export a queue, in which at most `limit` requests may wait."""
        self._queues = {**self._queues, name: _Queue(limit, queued, running)}

    def passes(self, passes: Callable[[], int]) -> None:
        """Export the number of forward passes since the start."""
        self._passes = passes

    def cache(self, used: Callable[[], float]) -> None:
        """Export the share of the key-value cache that is in use."""
        self._cache = used

    def serving(self, serving: Callable[[], bool]) -> None:
        """Export whether the health service says SERVING."""
        self._serving = serving

    def describe(self) -> Iterator[Metric]:
        """The families without samples, so that registering reads nothing."""
        yield from _queue_families()

    def collect(self) -> Iterator[Metric]:
        """Depth, limit and running requests of every queue; passes of the engine; health status."""
        depth, limit, running, passes, serving, cache = _queue_families()
        for name, queue in self._queues.items():
            depth.add_metric([name], queue.queued())
            limit.add_metric([name], queue.limit)
            running.add_metric([name], queue.running())
        passes.add_metric([], self._passes())
        serving.add_metric([], float(self._serving()))
        cache.add_metric([], self._cache())
        yield from (depth, limit, running, passes, serving, cache)


def _queue_families() -> tuple[
    GaugeMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
    CounterMetricFamily,
    GaugeMetricFamily,
    GaugeMetricFamily,
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
        GaugeMetricFamily(
            "sae_monitor_cache_used_ratio", "Share of the engine's key-value cache that requests hold."
        ),
    )


class Sessions(Protocol):
    """The store of conversations, as far as metrics need it; implemented in `monitor.policy`."""

    @property
    def evicted(self) -> Mapping[str, int]:
        """Number of conversations that were dropped since the start, by reason."""

    @property
    def returned(self) -> int:
        """Number of conversations that came back after they had been dropped."""

    def __len__(self) -> int:
        """Number of conversations that are kept."""


class SessionCollector(Collector):
    """Reads the store of conversations at each scrape."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def collect(self) -> Iterator[Metric]:
        """Conversations that are kept, were dropped, and came back."""
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


class LostLinesCollector(Collector):
    """Reads at each scrape how many lines of the log were lost."""

    def __init__(self, lost: Callable[[], int]) -> None:
        self._lost = lost

    def collect(self) -> Iterator[Metric]:
        """Lines that nobody read in time."""
        lost = CounterMetricFamily(
            "sae_monitor_log_lines_lost",
            "Lines of standard output and standard error that were dropped, because nobody read them in time.",
        )
        lost.add_metric([], self._lost())
        yield lost


class HealthMetrics:
    """Metrics of the dictionary on the running model, and of the self-test at load.

    Every method may be called from any thread. NaN means "not measured" or "not known".
    """

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
        """Set what was measured: mean active features per token, explained variance, share of norm outliers."""
        self._l0.set(l0)
        self._explained.set(explained_variance)
        self._outliers.set(norm_outliers)

    def expected(self, l0: float | None, explained_variance: float | None) -> None:
        """Set what the dictionary's statistics and makers say; None where they say nothing."""
        self._l0_expected.set(math.nan if l0 is None else l0)
        self._explained_expected.set(math.nan if explained_variance is None else explained_variance)

    def skipped(self, skipped: bool) -> None:
        """Set whether the operator skipped the self-test."""
        self._skipped.set(float(skipped))

    def self_test(self, check: str, passed: bool) -> None:
        """Set the result of one check at load; `check` is one of `monitor.model.selftest.result.CHECKS`."""
        self._self_test.labels(check).set(float(passed))


def watched_gauge(registry: CollectorRegistry = REGISTRY) -> Gauge:
    """Of vLLM's API server: 1 where its engine was started with the monitor's worker and scheduler, else 0.

    `registry` is by default the one whose metrics vLLM serves. Of several API servers the lowest value counts.
    """
    return Gauge(
        "vllm_watched",
        "1 where the engine of this vLLM runs under the monitor, 0 where it was to and does not.",
        namespace=NAMESPACE,
        registry=registry,
        multiprocess_mode="min",
    )
