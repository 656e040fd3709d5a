"""Metrics of access: reasons and callers are bounded, and there before anything happens."""

import time

import pytest
from prometheus_client import CollectorRegistry

from monitor.telemetry.metrics.security import REFUSALS, SecurityMetrics


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return SecurityMetrics(registry)


def value(registry, name, **labels):
    return registry.get_sample_value(f"sae_monitor_{name}", labels)


def test_every_reason_and_the_nameless_caller_are_there_before_anything_happens(registry, metrics):
    for reason in REFUSALS:
        assert value(registry, "refused_callers_total", reason=reason) == 0
    assert value(registry, "caller_calls_total", caller="") == 0


def test_calls_are_counted_by_caller(registry, metrics):
    metrics.callers(["gateway", "batch"])
    metrics.began("gateway")
    metrics.began("gateway")
    metrics.refused("role")
    assert value(registry, "caller_calls_total", caller="gateway") == 2
    assert value(registry, "caller_calls_total", caller="batch") == 0
    assert value(registry, "refused_callers_total", reason="role") == 1


def test_a_reading_that_failed_keeps_the_time_of_the_last_good_one(registry, metrics):
    before = time.time()
    metrics.read("tls", True)
    read_at = value(registry, "access_last_reload_success_timestamp_seconds", file="tls")
    assert before <= read_at <= time.time()
    metrics.read("tls", False)
    assert value(registry, "access_last_reload_success", file="tls") == 0
    assert value(registry, "access_last_reload_success_timestamp_seconds", file="tls") == read_at
    metrics.read("tls", True)
    assert value(registry, "access_last_reload_success", file="tls") == 1


def test_when_certificates_end_and_how_much_memory_is_used(registry, metrics):
    metrics.expires("certificate", 2e9)
    assert value(registry, "tls_certificate_expiry_timestamp_seconds", file="certificate") == 2e9
    used = [0.25]
    metrics.memory(lambda: used[0])
    assert value(registry, "memory_used_ratio") == 0.25
    used[0] = 0.5
    assert value(registry, "memory_used_ratio") == 0.5


def test_without_a_registry_it_has_its_own():
    SecurityMetrics()
    SecurityMetrics()
