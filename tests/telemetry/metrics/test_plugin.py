"""The metric of vLLM's API server."""

from prometheus_client import CollectorRegistry, generate_latest

from monitor.telemetry.metrics.plugin import watched_gauge


def test_a_server_says_that_it_is_not_watched_until_it_is():
    registry = CollectorRegistry()
    gauge = watched_gauge(registry)
    assert b"sae_monitor_vllm_watched 0.0" in generate_latest(registry)
    gauge.set(1)
    assert b"sae_monitor_vllm_watched 1.0" in generate_latest(registry)
