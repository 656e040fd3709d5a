"""Histograms of readings against a plain count of every number."""

import threading

import numpy as np
import pytest

from monitor.records import Phase, TokenBlock, WatchPlan
from monitor.telemetry.activations import BOUNDS, ActivationMeter


def block(readings, start=1, phase=Phase.RESPONSE):
    readings = np.asarray(readings, np.float32)
    return TokenBlock(phase, start, tuple(range(len(readings))), readings)


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
    meter = ActivationMeter(WatchPlan((3, 8)), [("p", 3), ("q", 8), ("p", 8)])
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
    meter = ActivationMeter(WatchPlan((3,)), [("p", 3)])
    meter.observe(block([[40.0], [0.25]], start=0, phase=Phase.PROMPT))
    found = samples(meter)
    assert expected([0.25]).items() <= found.items()
    assert found["tokens_scored_total", "prompt"] == 2


def test_a_reading_that_is_not_a_number_spoils_nothing():
    meter = ActivationMeter(WatchPlan((3,)), [("p", 3)])
    meter.observe(block([[np.nan], [np.inf], [0.5]]))
    assert expected([0.5]).items() <= samples(meter).items()


def test_an_empty_plan_counts_tokens():
    meter = ActivationMeter(WatchPlan(()), [])
    meter.observe(block(np.zeros((3, 0))))
    assert samples(meter)["tokens_scored_total", "response"] == 3


def test_scraping_twice_counts_once():
    meter = ActivationMeter(WatchPlan((3,)), [("p", 3)])
    meter.observe(block([[0.5]]))
    assert samples(meter) == samples(meter)


def test_no_token_is_lost_between_threads():
    meter = ActivationMeter(WatchPlan((3,)), [("p", 3)])

    def work():
        for _ in range(5000):
            meter.observe(block([[0.5]]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        samples(meter)
    for thread in threads:
        thread.join()
    found = samples(meter)
    assert found["tokens_scored_total", "response"] == 20000
    assert found["feature_activation_count", "3", "p"] == 20000
