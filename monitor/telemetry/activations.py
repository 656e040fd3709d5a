"""Histograms of the watched features' readings, cheap enough for every token.

A step of the engine hands over one small block per request; blocks wait, and are counted together once there are
many of them or somebody scrapes. Does not know policies beyond the names it is given as labels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.records import Phase, Readings, TokenBlock, WatchPlan

BOUNDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
"""Upper bounds of the buckets, in units of a feature's recorded maximum. The first counts tokens where it is off."""

_PENDING_TOKENS = 4096
_PENDING_BLOCKS = 1024
_UNIT = "in units of the feature's recorded maximum"


class ActivationMeter(Collector):
    """Counts scored tokens per phase and readings per watched feature; exports these per (policy, feature).

    `observe` may be called from any thread. It keeps the block until it is counted, so the block's array must
    not be written to again.
    """

    def __init__(self, watch: WatchPlan, labels: Iterable[tuple[str, int]]) -> None:
        self._labels = [(policy, feature, watch.column(feature)) for policy, feature in labels]
        width = len(watch)
        self._bounds = np.asarray(BOUNDS, dtype=np.float32)
        self._pending: deque[TokenBlock] = deque()
        self._waiting = 0
        self._tokens = dict.fromkeys(Phase, 0)
        self._counts = np.zeros((width, len(BOUNDS) + 1), dtype=np.int64)
        self._sums = np.zeros(width, dtype=np.float64)
        self._maxima = np.zeros(width, dtype=np.float64)
        self._lock = threading.Lock()

    def observe(self, block: TokenBlock) -> None:
        """Take a scored block. Of tokens with a reading that is not a number only their phase is counted."""
        self._pending.append(block)
        self._waiting += len(
            block.token_ids
        )  # Two threads may lose a count here; it only delays the counting.
        if self._waiting >= _PENDING_TOKENS or len(self._pending) >= _PENDING_BLOCKS:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Move what waits into the histograms. The lock is held."""
        self._waiting = 0
        blocks = [self._pending.popleft() for _ in range(len(self._pending))]
        if not blocks:
            return
        for block in blocks:
            self._tokens[block.phase] += len(block.token_ids)
        # Position 0 is an attention sink with huge readings; rules pass over it too.
        rows = [block.readings[1:] if block.start == 0 else block.readings for block in blocks]
        self._add(np.concatenate(rows))

    def _add(self, values: Readings) -> None:
        """Count `[tokens, watched]` readings."""
        values = values[np.isfinite(values).all(axis=1)]
        _, columns = active = np.nonzero(values)
        found = values[active]
        width, buckets = self._counts.shape
        slots = columns * buckets + np.searchsorted(self._bounds, found, side="left")
        counts = np.bincount(slots, minlength=width * buckets).reshape(width, buckets)
        counts[:, 0] += len(values) - np.bincount(columns, minlength=width)
        self._counts += counts
        self._sums += np.bincount(columns, weights=found, minlength=width)
        np.maximum.at(self._maxima, columns, found)

    def _snapshot(
        self,
    ) -> tuple[dict[Phase, int], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        with self._lock:
            self._count()
            return dict(self._tokens), self._counts.cumsum(axis=1), self._sums.copy(), self._maxima.copy()

    def describe(self) -> Iterator[Metric]:
        """Names only, so that registering does not scrape."""
        yield self._counter()
        yield self._histogram()
        yield self._gauge()

    def collect(self) -> Iterator[Metric]:
        """Tokens per phase; the histogram and the maximum of every (policy, feature)."""
        tokens, counts, sums, maxima = self._snapshot()
        counter = self._counter()
        for phase, number in tokens.items():
            counter.add_metric([phase.value], number)
        yield counter
        histogram, gauge = self._histogram(), self._gauge()
        bounds = [*(str(bound) for bound in BOUNDS), "+Inf"]
        for policy, feature, column in self._labels:
            labels = [policy, str(feature)]
            buckets = list(zip(bounds, counts[column].tolist(), strict=True))
            histogram.add_metric(labels, buckets, float(sums[column]))
            gauge.add_metric(labels, float(maxima[column]))
        yield histogram
        yield gauge

    @staticmethod
    def _counter() -> CounterMetricFamily:
        return CounterMetricFamily(
            "sae_monitor_tokens_scored", "Tokens scored against the policies.", labels=["phase"]
        )

    @staticmethod
    def _histogram() -> HistogramMetricFamily:
        return HistogramMetricFamily(
            "sae_monitor_feature_activation",
            f"Activation of a watched feature per scored token, BOS left out, {_UNIT}.",
            labels=["policy", "feature"],
        )

    @staticmethod
    def _gauge() -> GaugeMetricFamily:
        return GaugeMetricFamily(
            "sae_monitor_feature_activation_max",
            f"Highest activation of a watched feature since the policies were loaded, {_UNIT}.",
            labels=["policy", "feature"],
        )
