"""Metrics of a guard: there before anything happens, and counted where it does."""

import time

import pytest
from prometheus_client import CollectorRegistry

from monitor.records import Phase
from monitor.telemetry.metrics.guard import MODES, UPSTREAM_FAULTS, GuardMetrics


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return GuardMetrics(registry)


def value(registry, name, **labels):
    return registry.get_sample_value(f"sae_monitor_guard_{name}", labels)


def test_every_label_is_there_before_anything_happens(registry, metrics):
    assert all(value(registry, "wait_seconds_count", phase=phase.value) == 0 for phase in Phase)
    assert all(value(registry, "upstream_faults_total", fault=fault) == 0 for fault in UPSTREAM_FAULTS)
    assert all(value(registry, "unread_characters_total", mode=mode) == 0 for mode in MODES)
    assert value(registry, "blocked_prompts_total") == 0


def test_what_happens_is_counted(registry, metrics):
    with metrics.waiting(Phase.RESPONSE):
        time.sleep(0.02)
    metrics.fault("timeout")
    metrics.left_unread("sample", 12)
    metrics.blocked()
    assert value(registry, "wait_seconds_count", phase="response") == 1
    assert value(registry, "wait_seconds_sum", phase="response") >= 0.02
    assert value(registry, "upstream_faults_total", fault="timeout") == 1
    assert value(registry, "unread_characters_total", mode="sample") == 12
    assert value(registry, "blocked_prompts_total") == 1
