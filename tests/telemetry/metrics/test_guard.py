"""Metrics of text that waits for its score: there before anything happens, and counted where it does."""

import time

import pytest
from prometheus_client import CollectorRegistry

from monitor.records import Phase
from monitor.telemetry.metrics.guard import MODES, RESULTS, UNREAD, UPSTREAM_FAULTS, GuardMetrics, WaitMetrics


@pytest.fixture
def registry():
    return CollectorRegistry()


def value(registry, name, **labels):
    return registry.get_sample_value(f"sae_monitor_guard_{name}", labels)


def test_every_label_is_there_before_anything_happens(registry):
    WaitMetrics(registry).serves("guard", "envoy")
    GuardMetrics(registry)
    for contract in ("guard", "envoy"):
        for phase in Phase:
            for result in RESULTS:
                labels = {"contract": contract, "phase": phase.value, "result": result}
                assert value(registry, "wait_seconds_count", **labels) == 0
        assert all(value(registry, "unread_characters_total", contract=contract, mode=m) == 0 for m in MODES)
    assert value(registry, "unread_characters_total", contract="litellm", mode="hold") is None
    assert all(value(registry, "upstream_faults_total", fault=fault) == 0 for fault in UPSTREAM_FAULTS)
    assert all(value(registry, "unread_requests_total", result=result) == 0 for result in UNREAD)
    assert value(registry, "blocked_prompts_total") == 0


def test_what_happens_is_counted(registry):
    waits, metrics = WaitMetrics(registry), GuardMetrics(registry)
    found = []
    with waits.waiting("guard", Phase.RESPONSE, lambda: found[0]):
        time.sleep(0.02)
        found.append("blocked")
    waits.left_unread("guard", "sample", 12)
    metrics.fault("timeout")
    metrics.blocked()
    metrics.unread("refused")
    assert value(registry, "unread_requests_total", result="refused") == 1
    labels = {"contract": "guard", "phase": "response", "result": "blocked"}
    assert value(registry, "wait_seconds_count", **labels) == 1
    assert value(registry, "wait_seconds_sum", **labels) >= 0.02
    assert value(registry, "unread_characters_total", contract="guard", mode="sample") == 12
    assert value(registry, "upstream_faults_total", fault="timeout") == 1
    assert value(registry, "blocked_prompts_total") == 1
