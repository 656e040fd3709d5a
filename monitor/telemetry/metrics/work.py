"""What waits and what runs, read at each scrape.

Knows queues by name and how to ask them. Does not know engines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class _Queue:
    limit: int
    queued: Callable[[], int]
    running: Callable[[], int]


class WorkCollector(Collector):
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
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """Depth, limit and running requests of every queue; passes of the engine; health."""
        depth, limit, running, passes, serving = _families()
        for name, queue in self._queues.items():
            depth.add_metric([name], queue.queued())
            limit.add_metric([name], queue.limit)
            running.add_metric([name], queue.running())
        passes.add_metric([], self._passes())
        serving.add_metric([], float(self._serving()))
        yield from (depth, limit, running, passes, serving)


def _families() -> tuple[
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
