"""How metrics of this project are named and registered.

Knows the prefix, the buckets and the registry. Does not know any one metric.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

NAMESPACE = "sae_monitor"

DURATIONS = (0.001, 0.0025, 0.005, *(0.01 * 2**power for power in range(14)))
"""Seconds. From 0.01 on the buckets of OpenTelemetry's generative AI conventions, with finer ones below."""


class Families:
    """Makes metrics in one registry, all with the prefix."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # A series with the time of creation beside every counter would double what is stored, and nobody reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A number that only grows; `_total` is appended to its name."""
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A number that goes up and down."""
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        """Durations in seconds."""
        return Histogram(name, text, labels, namespace=NAMESPACE, buckets=DURATIONS, registry=self.registry)
