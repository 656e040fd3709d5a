"""Which parts of a server the metrics ask, and what they are told once.

Knows metrics and the runtime's seam. Does not count anything itself.
"""

from __future__ import annotations

from monitor import __version__
from monitor.model.selftest.health import DictionaryHealth
from monitor.records import Digests
from monitor.rpc.ports import Runtime
from monitor.settings import Settings
from monitor.telemetry.metrics.metrics import Metrics

SCORINGS_PER_GENERATION = 4
"""Texts may wait in the scorer for every generation that may wait in the engine."""


def connect(metrics: Metrics, settings: Settings, runtime: Runtime, health: DictionaryHealth | None) -> None:
    """Let the metrics read the queues at each scrape; say how good the dictionary is."""
    engine, scorer, limit = runtime.engine, runtime.scorer, settings.queue_size
    metrics.queue("generate", limit, engine.queue_depth, engine.running)
    metrics.queue("score", SCORINGS_PER_GENERATION * limit, scorer.queue_depth, scorer.running)
    metrics.passes(engine.passes)
    metrics.engine(separate=bool(engine.why_separate))
    if health is None:
        return
    metrics.health.skipped(health.skipped)
    for check, passed in health.checks:
        metrics.health.self_test(check, passed)
    metrics.dictionary_measured(health.l0, health.explained_variance, health.norm_outliers)
    if health.expected is not None:
        expected = health.expected
        metrics.dictionary_expected(expected.l0, expected.explained_variance, expected.density)


def built(metrics: Metrics, digests: Digests) -> None:
    """Say which version, model, dictionary and policies run; again after each reload of policies."""
    metrics.built(__version__, digests)
