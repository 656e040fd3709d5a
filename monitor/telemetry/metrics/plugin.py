"""The metric of the plug-in in vLLM's API server: whether its engine is monitored."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Gauge


def watched_gauge(registry: CollectorRegistry = REGISTRY) -> Gauge:
    """1 where vLLM was started with the monitor's worker and scheduler, else 0.

    `registry` is by default the one whose metrics vLLM serves. Of several API servers the lowest value counts.
    """
    return Gauge(
        "sae_monitor_vllm_watched",
        "1 where the engine of this vLLM runs under the monitor, 0 where it was to and does not.",
        registry=registry,
        multiprocess_mode="min",
    )
