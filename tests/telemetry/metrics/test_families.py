"""Names and buckets of all metrics."""

import itertools

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from monitor.telemetry.metrics.families import DURATIONS, Families


def test_names_have_the_prefix_and_the_ending_of_their_kind():
    registry = CollectorRegistry()
    families = Families(registry)
    families.counter("things", "Things.", "kind").labels("a").inc()
    families.gauge("level", "A level.").set(2)
    families.histogram("wait_seconds", "A wait.").observe(0.02)
    assert registry.get_sample_value("sae_monitor_things_total", {"kind": "a"}) == 1
    assert registry.get_sample_value("sae_monitor_level") == 2
    assert registry.get_sample_value("sae_monitor_wait_seconds_bucket", {"le": "0.02"}) == 1
    assert registry.get_sample_value("sae_monitor_wait_seconds_bucket", {"le": "0.01"}) == 0
    assert b"_created" not in generate_latest(registry)


def test_a_name_is_taken_once():
    families = Families(CollectorRegistry())
    families.gauge("level", "A level.")
    with pytest.raises(ValueError, match="Duplicated"):
        families.gauge("level", "Another.")


def test_buckets_of_durations_grow():
    assert DURATIONS[:4] == (0.001, 0.0025, 0.005, 0.01)
    assert all(earlier < later for earlier, later in itertools.pairwise(DURATIONS))
    assert DURATIONS[-1] == pytest.approx(81.92)
