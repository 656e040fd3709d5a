"""Histograms of the watched features' readings, cheap enough for every token.

Blocks of readings wait, and are counted together once there are many of them or Prometheus scrapes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.records import Blocks, Phase, Readings, WatchPlan

BOUNDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
"""Upper bounds of the buckets, in units of a feature's recorded maximum. The first counts tokens where it is off."""

OTHER = "other"
"""Stands in the label `feature` for all features of a policy beyond the limit, together."""

_UNIT = "in units of the feature's recorded maximum"
_LABELS = [*(str(bound) for bound in BOUNDS), "+Inf"]


def _counted(blocks: Blocks) -> Readings:
    """`[tokens, watched]` without attention sinks, whose readings are huge, and which rules pass over too."""
    rows, ordinary = blocks.in_order(blocks.firsts), blocks.ordinary()
    if len(rows) == len(blocks.readings) and ordinary.all():
        return blocks.readings
    return blocks.readings[rows[ordinary]]


_EDGES = np.asarray(BOUNDS, dtype=np.float32)
_PENDING_READINGS = 1 << 16
"""Readings that wait: as many as a processor's cache holds, so that counting them costs little and holds up no pass."""
_PENDING_PASSES = 1024
_BUCKETS = len(BOUNDS) + 1


class Counts(NamedTuple):
    """What was counted of one feature."""

    cumulated: NDArray[np.int64]
    """`[len(BOUNDS) + 1]` readings at or below each bound, then all."""
    total: float
    """Sum of all readings."""
    maximum: float

    def plus(self, other: Counts) -> Counts:
        """Two features counted as one."""
        return Counts(
            self.cumulated + other.cumulated, self.total + other.total, max(self.maximum, other.maximum)
        )


NOTHING = Counts(np.zeros(len(BOUNDS) + 1, dtype=np.int64), 0.0, 0.0)


class Shown(NamedTuple):
    """The features of one policy."""

    policy: str
    own: tuple[int, ...]
    """Have a label set each."""
    folded: tuple[int, ...]
    """Are counted together as `other`."""


class ActivationLedger:
    """Counts of every watched feature, kept over changes of the policies. Any thread.

    A feature that is watched before and after a change keeps its counts; one that no policy watches any more is
    dropped. Tokens per phase are kept for good.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[WatchPlan, Blocks]] = deque()
        self._waiting = 0
        self._lock = threading.Lock()
        self._tokens = dict.fromkeys(Phase, 0)
        self._rows: dict[int, int] = {}
        self._adopt(WatchPlan(()))

    def watch(self, plan: WatchPlan) -> ActivationMeter:
        """Count these features from now on; gives the meter for requests that begin on this plan."""
        with self._lock:
            self._count()
            self._adopt(plan)
        return ActivationMeter(self, plan)

    def observe(self, plan: WatchPlan, blocks: Blocks) -> None:
        """Take readings in the columns of `plan`; they must not be written to again."""
        self._pending.append((plan, blocks))
        # Two threads may lose a count here; it only delays the counting.
        self._waiting += blocks.readings.size
        if self._waiting >= _PENDING_READINGS or len(self._pending) >= _PENDING_PASSES:
            with self._lock:
                self._count()

    def counts(self) -> tuple[dict[Phase, int], Mapping[int, Counts]]:
        """Tokens per phase, and every feature's counts so far."""
        with self._lock:
            self._count()
            cumulated = self._counts.cumsum(axis=1)
            features = {
                feature: Counts(cumulated[row], float(self._sums[row]), float(self._maxima[row]))
                for feature, row in self._rows.items()
            }
            return dict(self._tokens), features

    def _adopt(self, plan: WatchPlan) -> None:
        """One row for each feature of the plan, with what it had before."""
        old = self._rows
        width = len(plan.features)
        counts = np.zeros((width, _BUCKETS), dtype=np.int64)
        sums, maxima = np.zeros(width), np.zeros(width)
        for row, feature in enumerate(plan.features):
            if feature in old:
                was = old[feature]
                counts[row], sums[row], maxima[row] = self._counts[was], self._sums[was], self._maxima[was]
        self._plan = plan
        self._looked_up: WatchPlan | None = None
        """The plan whose columns were looked up last, while the rows are these."""
        self._found: NDArray[np.intp] = np.zeros(0, np.intp)
        self._rows = {feature: row for row, feature in enumerate(plan.features)}
        self._counts: NDArray[np.int64] = counts
        self._sums: NDArray[np.float64] = sums
        self._maxima: NDArray[np.float64] = maxima

    def _count(self) -> None:
        """Move what waits into the histograms. The lock is held."""
        self._waiting = 0
        taken = [self._pending.popleft() for _ in range(len(self._pending))]
        groups: dict[int, tuple[WatchPlan, list[Readings]]] = {}
        for plan, blocks in taken:
            whole, responses = int(blocks.counts.sum()), int(blocks.counts[blocks.responses].sum())
            self._tokens[Phase.RESPONSE] += responses
            self._tokens[Phase.PROMPT] += whole - responses
            groups.setdefault(id(plan), (plan, []))[1].append(_counted(blocks))
        for plan, rows in groups.values():
            self._add(self._columns(plan), rows[0] if len(rows) == 1 else np.concatenate(rows))

    def _columns(self, plan: WatchPlan) -> NDArray[np.intp]:
        """Of each column of `plan` the row that it is counted in; −1 for features that nobody watches any more.

        Probes and signals stand behind the features and are not counted.
        """
        if plan is not self._looked_up:
            others = len(plan) - len(plan.features)
            rows = [self._rows.get(feature, -1) for feature in plan.features] + others * [-1]
            self._looked_up, self._found = plan, np.asarray(rows, dtype=np.intp)
        return self._found

    def _add(self, rows: NDArray[np.intp], values: Readings) -> None:
        """Count `[tokens, columns]` readings into the rows of their columns. A NaN in a token drops the token."""
        columns, found = _not_zero(values)
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(found.sum())
        if not finite:  # or the sum of finite numbers overflowed
            values = values[np.isfinite(values).all(axis=1)]
            columns, found = _not_zero(values)
        row = rows.take(columns)
        kept = (row >= 0).nonzero()[0]
        row, found, height = row[kept], found[kept], len(self._rows)
        slots = row * _BUCKETS + np.searchsorted(_EDGES, found, side="left")
        self._counts += np.bincount(slots, minlength=height * _BUCKETS).reshape(height, _BUCKETS)
        self._counts[rows[rows >= 0], 0] += len(values)
        self._counts[:, 0] -= np.bincount(row, minlength=height)
        self._sums += np.bincount(row, weights=found, minlength=height)
        np.maximum.at(self._maxima, row, found.astype(np.float64))  # of one type: many times as fast


def _not_zero(values: Readings) -> tuple[NDArray[np.intp], Readings]:
    """Column and value of all readings that are not zero. numpy finds booleans many times as fast as floats."""
    flat = np.ascontiguousarray(values).ravel()
    places = (flat != 0).nonzero()[0]
    return places % max(values.shape[1], 1), flat.take(places)


class ActivationMeter:
    """Where the readings of requests on one policy set go. `observe` may be called from any thread."""

    def __init__(self, ledger: ActivationLedger, plan: WatchPlan) -> None:
        self._ledger = ledger
        self._plan = plan

    def observe(self, blocks: Blocks) -> None:
        """Take the blocks of a pass. Of tokens with a reading that is not a number only their phase is counted."""
        if blocks.readings.shape[1] == len(self._plan):
            self._ledger.observe(self._plan, blocks)


def shown(watched: Mapping[str, Sequence[int]], limit: int) -> list[Shown]:
    """Which features get a label set of their own, at most `limit` of them, and which share their policy's `other`.

    Policies take turns, each with the features that weigh most in it first, so that a wide one starves no other.
    """
    turns = max((len(features) for features in watched.values()), default=0)
    order = [
        (policy, features[turn])
        for turn in range(turns)
        for policy, features in watched.items()
        if turn < len(features)
    ]
    own = set(order[:limit])
    return [
        Shown(
            policy,
            tuple(feature for feature in features if (policy, feature) in own),
            tuple(feature for feature in features if (policy, feature) not in own),
        )
        for policy, features in watched.items()
    ]


def features_of(chosen: Iterable[Shown]) -> set[int]:
    """Every feature that has a label set of its own."""
    return {feature for policy in chosen for feature in policy.own}


class ActivationCollector(Collector):
    """Exports counts for the policies that `show` named last. Any thread."""

    def __init__(self, counts: Callable[[], tuple[dict[Phase, int], Mapping[int, Counts]]]) -> None:
        self._counts = counts
        self._shown: Sequence[Shown] = ()
        self._density: Mapping[int, float] = {}

    def show(self, chosen: Sequence[Shown], density: Mapping[int, float]) -> None:
        """Export these policies' features from now on, beside the density that each was measured with."""
        self._shown, self._density = tuple(chosen), dict(density)

    def describe(self) -> Iterator[Metric]:
        """Names only, so that registering does not scrape."""
        yield _tokens()
        yield from _families()

    def collect(self) -> Iterator[Metric]:
        """Tokens per phase; histogram, maximum and baseline of every (policy, feature); what was folded."""
        tokens, counts = self._counts()
        counter = _tokens()
        for phase, number in tokens.items():
            counter.add_metric([phase.value], number)
        yield counter
        families = _families()
        for policy in self._shown:
            self._add(families, policy, counts)
        yield from families

    def _add(self, families: _Families, policy: Shown, counts: Mapping[int, Counts]) -> None:
        for feature in policy.own:
            families.add([policy.policy, str(feature)], counts.get(feature, NOTHING))
            if feature in self._density:
                families.baseline.add_metric([policy.policy, str(feature)], self._density[feature])
        folded = NOTHING
        for feature in policy.folded:
            folded = folded.plus(counts.get(feature, NOTHING))
        if policy.folded:
            families.add([policy.policy, OTHER], folded)
        families.folded.add_metric([policy.policy], int(folded.cumulated[-1]))
        families.folded_sets.add_metric([policy.policy], len(policy.folded))


class _Families(NamedTuple):
    """One empty family of each metric."""

    histogram: HistogramMetricFamily
    maximum: GaugeMetricFamily
    baseline: GaugeMetricFamily
    folded: CounterMetricFamily
    folded_sets: GaugeMetricFamily

    def add(self, labels: list[str], counts: Counts) -> None:
        """One label set of the histogram and of the maximum."""
        buckets = list(zip(_LABELS, counts.cumulated.tolist(), strict=True))
        self.histogram.add_metric(labels, buckets, counts.total)
        self.maximum.add_metric(labels, counts.maximum)


def _tokens() -> CounterMetricFamily:
    return CounterMetricFamily(
        "sae_monitor_tokens_scored", "Tokens scored against the policies.", labels=["phase"]
    )


def _families() -> _Families:
    both = ["policy", "feature"]
    return _Families(
        HistogramMetricFamily(
            "sae_monitor_feature_activation",
            f"Activation of a watched feature per scored token, BOS left out, {_UNIT}.",
            labels=both,
        ),
        GaugeMetricFamily(
            "sae_monitor_feature_activation_max",
            f"Highest activation of a watched feature since it is watched, {_UNIT}.",
            labels=both,
        ),
        GaugeMetricFamily(
            "sae_monitor_feature_density_baseline_ratio",
            "Share of tokens on which a feature was active over the corpus that its unit was measured on.",
            labels=both,
        ),
        CounterMetricFamily(
            "sae_monitor_feature_readings_folded",
            "Readings counted under the feature `other`, because the limit on label sets was reached.",
            labels=["policy"],
        ),
        GaugeMetricFamily(
            "sae_monitor_feature_label_sets_folded",
            "Features of a policy that have no label set of their own.",
            labels=["policy"],
        ),
    )
