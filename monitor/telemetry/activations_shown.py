"""How the readings' histograms are exported: one label set per (policy, feature), up to a limit.

Knows Prometheus' metric families. Does not know where counts come from, only who has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from monitor.records import Phase

BOUNDS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
"""Upper bounds of the buckets, in units of a feature's recorded maximum. The first counts tokens where it is off."""

OTHER = "other"
"""Stands in the label `feature` for all features of a policy beyond the limit, together."""

_UNIT = "in units of the feature's recorded maximum"
_EDGES = [*(str(bound) for bound in BOUNDS), "+Inf"]


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
        buckets = list(zip(_EDGES, counts.cumulated.tolist(), strict=True))
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
