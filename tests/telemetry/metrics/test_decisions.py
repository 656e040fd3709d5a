"""Metrics of the decision log and of those who watch it."""

import pytest
from prometheus_client import CollectorRegistry

from monitor.telemetry.metrics.decisions import DROPS, ERRORS, DecisionLogMetrics, WatchMeter
from monitor.telemetry.metrics.families import Families
from tests.telemetry.metrics.measured import full
from tests.telemetry.metrics.measured import value as sample


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def log(registry):
    return DecisionLogMetrics(Families(registry))


def value(registry, name, **labels):
    return registry.get_sample_value(f"sae_monitor_{name}", labels)


def test_every_cause_is_there_before_anything_happens(registry, log):
    assert [value(registry, "decision_log_dropped_total", cause=cause) for cause in DROPS] == [0] * len(DROPS)
    assert [value(registry, "decision_log_errors_total", cause=cause) for cause in ERRORS] == [0] * len(
        ERRORS
    )
    assert value(registry, "decision_log_enabled") == 0


def test_what_is_written(registry, log):
    log.committed(3, 900, 0.004)
    log.committed(1, 100, 0.2)
    assert value(registry, "decision_log_records_total") == 4
    assert value(registry, "decision_log_bytes_total") == 1000
    assert value(registry, "decision_log_commit_seconds_count") == 2
    assert value(registry, "decision_log_commit_seconds_sum") == pytest.approx(0.204)


def test_causes_that_are_not_listed_count_as_others(registry, log):
    log.dropped("disk_full", 5)
    log.dropped("sunspots")
    log.failed("rotate")
    log.failed("sunspots")
    assert value(registry, "decision_log_dropped_total", cause="disk_full") == 5
    assert value(registry, "decision_log_dropped_total", cause="error") == 1
    assert value(registry, "decision_log_errors_total", cause="rotate") == 1
    assert value(registry, "decision_log_errors_total", cause="other") == 1
    assert value(registry, "decision_log_errors_total", cause="sunspots") is None


def test_the_queue_is_read_at_the_scrape(registry, log):
    waiting = [3]
    log.enabled(lambda: waiting[0], 1000)
    assert value(registry, "decision_log_enabled") == 1
    assert value(registry, "decision_log_queue_limit_records") == 1000
    assert value(registry, "decision_log_queue_records") == 3
    waiting[0] = 8
    assert value(registry, "decision_log_queue_records") == 8


def test_streams_that_watch_and_what_they_missed(registry):
    meter = WatchMeter(registry)
    meter.streams(2)
    meter.streams(1)
    meter.missed()
    meter.missed()
    assert value(registry, "watch_streams") == 1
    assert value(registry, "watch_missed_records_total") == 2


def test_a_log_file_that_others_took_away_moves_a_metric_and_only_a_removed_one_loses_records(metrics):
    assert sample(metrics, "decision_log_displaced_files_total", cause="truncated") == 0
    full(metrics)
    assert sample(metrics, "decision_log_displaced_files_total", cause="removed") == 1
    assert sample(metrics, "decision_log_displaced_files_total", cause="moved") == 1
    assert sample(metrics, "decision_log_dropped_total", cause="removed") == 7
