"""How many conversations are kept for rules that add up over them, and how many were dropped.

Knows numbers. Does not know what a conversation holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


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
