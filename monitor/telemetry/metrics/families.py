"""How metrics of this project are named and registered: prefix, duration buckets and registry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

NAMESPACE = "sae_monitor"

DURATIONS = (0.001, 0.0025, 0.005, *(0.01 * 2**power for power in range(14)))
"""Buckets of durations in seconds: from 0.01 on those of OpenTelemetry's conventions for generative AI."""


class Families:
    """Creates metrics with the project's prefix in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Otherwise every counter gets a second series with its time of creation, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """A counter; `_total` is appended to its name."""
        return Counter(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """A gauge."""
        return Gauge(name, text, labels, namespace=NAMESPACE, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        """A histogram of durations in seconds."""
        return Histogram(name, text, labels, namespace=NAMESPACE, buckets=DURATIONS, registry=self.registry)
