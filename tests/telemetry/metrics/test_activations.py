"""Histograms of readings against a plain count of every number."""

import numpy as np
import pytest

from monitor.records import Blocks, Phase, Probe, TokenBlock, WatchPlan
from monitor.telemetry.metrics.activations import (
    _PENDING_READINGS,
    BOUNDS,
    ActivationCollector,
    ActivationLedger,
    shown,
)
from tests.children import beside, four_at_once


class Exported:
    """A ledger, its meter for one watch plan and what Prometheus gets of it."""

    def __init__(self, plan, labels, limit=1000, density=None):
        self.ledger = ActivationLedger()
        self.collector = ActivationCollector(self.ledger.counts)
        self.watch(plan, labels, limit, density)

    def watch(self, plan, labels, limit=1000, density=None):
        watched = {}
        for policy, feature in labels:
            watched.setdefault(policy, []).append(feature)
        self.collector.show(shown(watched, limit), density or {})
        self.meter = self.ledger.watch(plan)
        return self.meter

    def observe(self, found):
        self.meter.observe(found)

    def collect(self):
        return self.collector.collect()


def block(readings, start=1, phase=Phase.RESPONSE):
    readings = np.asarray(readings, np.float32)
    return Blocks.of([(0, TokenBlock(phase, start, tuple(range(len(readings))), readings))])


def samples(meter):
    return {
        (sample.name.removeprefix("sae_monitor_"), *sorted(sample.labels.values())): sample.value
        for family in meter.collect()
        for sample in family.samples
    }


def expected(values, policy="p", feature="3"):
    """One histogram by comparing every value with every bound, in float64."""
    values = np.asarray(values, np.float64)
    wanted = {}
    for bound in [*BOUNDS, np.inf]:
        edge = "+Inf" if bound == np.inf else str(bound)
        count = int((values <= np.float32(bound)).sum())
        wanted["feature_activation_bucket", *sorted((policy, feature, edge))] = count
    wanted["feature_activation_count", *sorted((policy, feature))] = len(values)
    wanted["feature_activation_sum", *sorted((policy, feature))] = pytest.approx(values.sum(), rel=1e-6)
    wanted["feature_activation_max", *sorted((policy, feature))] = max(values, default=0.0)
    return wanted


def test_histograms_equal_a_plain_count():
    draw = np.random.default_rng(0)
    meter = Exported(WatchPlan((3, 8)), [("p", 3), ("q", 8), ("p", 8)])
    everything = []
    for size in [1, 1, 5, 300, 2000, 1, 4096, 7]:
        readings = np.where(draw.random((size, 2)) < 0.2, draw.gamma(1.0, 0.5, (size, 2)), 0).astype(
            np.float32
        )
        readings[0, 0] = draw.choice(np.asarray(BOUNDS, np.float32))
        everything.append(readings)
        meter.observe(block(readings))
    values = np.concatenate(everything)
    found = samples(meter)
    for policy, feature, column in [("p", "3", 0), ("q", "8", 1), ("p", "8", 1)]:
        assert expected(values[:, column], policy, feature).items() <= found.items()
    assert found["tokens_scored_total", "response"] == len(values)


def test_the_first_position_is_counted_as_scored_but_not_as_a_reading():
    meter = Exported(WatchPlan((3,)), [("p", 3)])
    meter.observe(block([[40.0], [0.25]], start=0, phase=Phase.PROMPT))
    found = samples(meter)
    assert expected([0.25]).items() <= found.items()
    assert found["tokens_scored_total", "prompt"] == 2


def test_a_reading_that_is_not_a_number_spoils_nothing():
    meter = Exported(WatchPlan((3,)), [("p", 3)])
    meter.observe(block([[np.nan], [np.inf], [0.5]]))
    assert expected([0.5]).items() <= samples(meter).items()


def test_an_empty_plan_counts_tokens():
    meter = Exported(WatchPlan(()), [])
    meter.observe(block(np.zeros((3, 0))))
    assert samples(meter)["tokens_scored_total", "response"] == 3


def test_scraping_twice_counts_once():
    meter = Exported(WatchPlan((3,)), [("p", 3)])
    meter.observe(block([[0.5]]))
    assert samples(meter) == samples(meter)


def test_no_token_is_lost_between_threads():
    meter = Exported(WatchPlan((3,)), [("p", 3)])

    def work():
        for _ in range(5000):
            meter.observe(block([[0.5]]))

    with beside(lambda: samples(meter)):
        four_at_once(work)
    found = samples(meter)
    assert found["tokens_scored_total", "response"] == 20000
    assert found["feature_activation_count", "3", "p"] == 20000


def test_a_reload_keeps_the_counts_of_what_is_still_watched_and_drops_the_rest():
    meter = Exported(WatchPlan((3, 8)), [("p", 3), ("p", 8)])
    meter.observe(block([[0.5, 0.25]]))
    old = meter.meter
    new = meter.watch(WatchPlan((5, 8)), [("p", 8), ("q", 5)])
    new.observe(block([[1.0, 0.75]]))
    old.observe(block([[9.0, 0.125]]))
    found = samples(meter)
    assert expected([0.25, 0.75, 0.125], feature="8").items() <= found.items()
    assert expected([1.0], "q", "5").items() <= found.items()
    assert not any("3" in key for key in found)
    assert found["tokens_scored_total", "response"] == 3


def test_features_beyond_the_limit_are_counted_together_and_that_is_counted():
    watched = [("wide", f) for f in range(6)] + [("narrow", 6), ("narrow", 0)]
    meter = Exported(WatchPlan(tuple(range(7))), watched, limit=4)
    rows = np.random.default_rng(1).gamma(1.0, 0.3, (50, 7)).astype(np.float32)
    meter.observe(block(rows))
    found = samples(meter)
    for policy, feature in [("wide", 0), ("wide", 1), ("narrow", 6), ("narrow", 0)]:
        assert expected(rows[:, feature], policy, str(feature)).items() <= found.items()
    assert expected(rows[:, 2:6].reshape(-1), "wide", "other").items() <= found.items()
    assert not any({"narrow", "other"} <= set(key) for key in found)
    assert (found["feature_readings_folded_total", "wide"], found["feature_label_sets_folded", "wide"]) == (
        200,
        4,
    )
    assert (
        found["feature_readings_folded_total", "narrow"],
        found["feature_label_sets_folded", "narrow"],
    ) == (0, 0)


def test_the_baseline_stands_beside_every_feature_that_has_one():
    meter = Exported(WatchPlan((3, 8)), [("p", 3), ("p", 8)], density={3: 0.02})
    found = samples(meter)
    assert found["feature_density_baseline_ratio", "3", "p"] == 0.02
    assert ("feature_density_baseline_ratio", "8", "p") not in found


def test_no_token_is_lost_while_policies_are_reloaded():
    meter = Exported(WatchPlan((3, 8)), [("p", 3), ("p", 8)])
    plans = [WatchPlan((8, 3)), WatchPlan((3, 8, 9))]

    def work():
        for _ in range(3000):
            mine = meter.meter
            width = len(mine._plan)
            mine.observe(block(np.full((1, width), 0.5)))

    def reload():
        for plan in plans:
            meter.watch(plan, [("p", 3), ("p", 8)])

    with beside(reload):
        four_at_once(work)
    found = samples(meter)
    assert found["tokens_scored_total", "response"] == 12000
    assert found["feature_activation_count", "3", "p"] == found["feature_activation_count", "8", "p"] == 12000


def test_probes_and_signals_behind_the_features_are_not_counted_as_features():
    probe = Probe("p", (1.0,) * 4)
    plan = WatchPlan((3, 8), (probe,))
    meter = Exported(plan, [("p", 3), ("p", 8)])
    meter.observe(block([[0.5, 0.0, -7.0], [0.25, 1.0, 9.0]]))
    old = meter.meter
    meter.watch(WatchPlan((8,)), [("p", 8)])
    old.observe(block([[0.5, 0.75, 4.0]]))
    assert expected([0.0, 1.0, 0.75], feature="8").items() <= samples(meter).items()


def test_rows_of_a_pass_that_belong_to_other_sets_are_not_counted():
    meter = Exported(WatchPlan((3,)), [("p", 3)])
    readings = np.asarray([[9.0], [0.25], [0.5], [9.0], [0.75]], np.float32)
    two = (
        np.asarray([0, 1]),
        np.asarray([True, False]),
        np.asarray([4, 0]),
        np.asarray([1, 3]),
        np.asarray([2, 2]),
    )
    meter.observe(Blocks(*two, token_ids=np.arange(5), readings=readings))
    found = samples(meter)
    assert expected([0.25, 0.5, 0.75]).items() <= found.items()
    assert (found["tokens_scored_total", "response"], found["tokens_scored_total", "prompt"]) == (2, 2)


def test_no_pass_pays_for_those_before_it():
    """A pass with many readings is counted by itself; those with few wait, though not beyond as many readings."""
    plan = WatchPlan(tuple(range(100)))
    ledger = ActivationLedger()
    meter = ledger.watch(plan)
    for _ in range(4):
        meter.observe(block(np.ones((_PENDING_READINGS // 100 + 1, 100))))
        assert not ledger._pending
    for _ in range(2000):
        meter.observe(block(np.ones((2, 100))))
        assert sum(blocks.readings.size for _, blocks in ledger._pending) < _PENDING_READINGS
    assert ledger._pending
    assert ledger.counts()[1][0].cumulated[-1] == 4 * (_PENDING_READINGS // 100 + 1) + 4000
