"""Metrics of a server's state: queues, conversations, the dictionary."""

import math

from prometheus_client import CollectorRegistry, generate_latest

from monitor.telemetry.metrics.families import Families
from monitor.telemetry.metrics.server_state import (
    HealthMetrics,
    QueueCollector,
    SessionCollector,
    watched_gauge,
)
from tests.telemetry.metrics.measured import full, value


def test_the_dictionary_is_not_measured_until_it_is(metrics):
    assert math.isnan(value(metrics, "dictionary_l0"))
    metrics.dictionary_measured(31.5, 0.8, 0.02)
    assert value(metrics, "dictionary_l0") == 31.5
    assert value(metrics, "dictionary_explained_variance_ratio") == 0.8
    assert value(metrics, "dictionary_norm_outliers_ratio") == 0.02


def test_what_is_read_at_the_scrape(metrics):
    serving = [False]
    metrics.serving(lambda: serving[0])
    assert value(metrics, "serving") == 0
    serving[0] = True
    assert value(metrics, "serving") == 1
    full(metrics)
    assert value(metrics, "queue_depth", queue="generate") == 3
    assert value(metrics, "queue_limit", queue="score") == 32
    assert value(metrics, "engine_passes_total") == 17


class Kept:
    """A store of conversations as metrics see it."""

    def __init__(self):
        self.evicted, self.returned = {"size": 4, "ttl": 2}, 3

    def __len__(self):
        return 7


def test_conversations_are_read_at_each_scrape():
    registry, kept = CollectorRegistry(), Kept()
    registry.register(SessionCollector(kept))
    assert registry.get_sample_value("sae_monitor_sessions") == 7
    assert registry.get_sample_value("sae_monitor_sessions_evicted_total", {"reason": "ttl"}) == 2
    kept.returned = 9
    assert registry.get_sample_value("sae_monitor_sessions_returned_total") == 9


def test_a_queue_may_come_later_and_replace_one_of_its_name():
    registry, queues = CollectorRegistry(), QueueCollector()
    registry.register(queues)
    assert registry.get_sample_value("sae_monitor_queue_depth", {"queue": "score"}) is None
    assert registry.get_sample_value("sae_monitor_engine_passes_total") == 0
    assert registry.get_sample_value("sae_monitor_serving") == 0
    queues.queue("score", 5, lambda: 1, lambda: 2)
    queues.queue("generate", 8, lambda: 0, lambda: 0)
    queues.queue("score", 6, lambda: 3, lambda: 4)
    found = [
        registry.get_sample_value(f"sae_monitor_{n}", {"queue": "score"})
        for n in ("queue_depth", "queue_limit", "running")
    ]
    assert found == [3, 6, 4]
    assert registry.get_sample_value("sae_monitor_queue_limit", {"queue": "generate"}) == 8


def test_registering_reads_no_queue():
    queues = QueueCollector()
    queues.queue("score", 5, lambda: 1 / 0, lambda: 0)
    CollectorRegistry().register(queues)


def test_what_is_not_known_is_no_number():
    registry = CollectorRegistry()
    health = HealthMetrics(Families(registry))

    def value(name, **labels):
        return registry.get_sample_value(f"sae_monitor_{name}", labels)

    for name in ("dictionary_l0", "dictionary_l0_expected", "dictionary_explained_variance_expected_ratio"):
        assert math.isnan(value(name))
    health.expected(12.5, None)
    assert value("dictionary_l0_expected") == 12.5
    assert math.isnan(value("dictionary_explained_variance_expected_ratio"))
    health.self_test("loss", True)
    health.self_test("norm", False)
    health.skipped(True)
    assert (value("self_test_passed", check="loss"), value("self_test_passed", check="norm")) == (1, 0)
    assert value("self_test_skipped") == 1


def test_a_server_says_that_it_is_not_watched_until_it_is():
    registry = CollectorRegistry()
    gauge = watched_gauge(registry)
    assert b"sae_monitor_vllm_watched 0.0" in generate_latest(registry)
    gauge.set(1)
    assert b"sae_monitor_vllm_watched 1.0" in generate_latest(registry)
