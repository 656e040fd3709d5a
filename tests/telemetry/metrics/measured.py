"""Metrics of a server, and their values."""

from monitor.records import (
    Digests,
)
from tests.rpc.fake import policies


def value(metrics, name, **labels):
    return metrics.registry.get_sample_value(f"sae_monitor_{name}", labels)


def full(metrics):
    """Everything that a server sets."""
    chosen = policies()
    meter = metrics.policies_changed(chosen)
    metrics.methods(["Score"], ["OK", "INTERNAL"])
    metrics.built("0.1.0", Digests("sha256:a", "sha256:b", "sha256:c"))
    metrics.queue("generate", 8, lambda: 3, lambda: 4)
    metrics.queue("score", 32, lambda: 0, lambda: 1)
    metrics.passes(lambda: 17)
    metrics.serving(lambda: True)
    metrics.decision_log.enabled(lambda: 2, 1000)
    metrics.decision_log.committed(3, 900, 0.004)
    metrics.decision_log.displaced("removed", 7)
    metrics.decision_log.displaced("moved", 5)
    metrics.call_ended("Score", "OK", 0.004)
    metrics.first_token(0.1)
    return chosen, meter
