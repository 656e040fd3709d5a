"""Names, labels and what each event adds."""

import math
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from monitor.records import (
    Action,
    Clamp,
    Coverage,
    Decision,
    Detection,
    Digests,
    Mode,
    Phase,
    Severity,
    Status,
    TokenBlock,
    Verdict,
)
from monitor.telemetry.metrics.metrics import FAILURES, Metrics
from monitor.telemetry.metrics.observer import MeteredObserver
from tests.rpc.fake import policies, policy


@pytest.fixture
def metrics():
    return Metrics(CollectorRegistry())


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
    metrics.call_ended("Score", "OK", 0.004)
    metrics.first_token(0.1)
    return chosen, meter


@pytest.mark.real
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_finds_nothing_to_complain_about(metrics):
    full(metrics)
    found = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(metrics.registry),
        capture_output=True,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")


def test_openmetrics_can_be_read_back(metrics):
    full(metrics)
    text = generate_openmetrics(metrics.registry).decode()
    names = {family.name for family in parse_openmetrics(text)}
    assert {"sae_monitor_requests", "sae_monitor_feature_activation", "sae_monitor_tokens_scored"} <= names


def test_every_metric_of_ours_has_the_prefix_and_a_help_text(metrics):
    full(metrics)
    for family in metrics.registry.collect():
        assert family.name.startswith(("sae_monitor_", "process_"))
        assert family.documentation.endswith(".")


def test_durations_fall_into_their_buckets(metrics):
    full(metrics)
    assert value(metrics, "request_duration_seconds_bucket", method="Score", le="0.0025") == 0
    assert value(metrics, "request_duration_seconds_bucket", method="Score", le="0.005") == 1
    assert value(metrics, "requests_total", method="Score", code="OK") == 1
    assert value(metrics, "requests_total", method="Score", code="INTERNAL") == 0


def test_the_dictionary_is_not_measured_until_it_is(metrics):
    assert math.isnan(value(metrics, "dictionary_l0"))
    metrics.dictionary_measured(31.5, 0.8, 0.02)
    assert value(metrics, "dictionary_l0") == 31.5
    assert value(metrics, "dictionary_explained_variance_ratio") == 0.8
    assert value(metrics, "dictionary_norm_outliers_ratio") == 0.02


def test_an_unscored_request_is_counted_by_cause(metrics):
    coverage = Coverage(10, 7, 4)
    metrics.judged(Verdict(Status.UNKNOWN, Action.BLOCK, coverage, failure="non_finite"))
    metrics.judged(Verdict(Status.UNKNOWN, Action.BLOCK, Coverage(5, 5), failure="made up"))
    metrics.judged(Verdict(Status.CHECKED, Action.ALLOW, Coverage(5, 5)))
    assert value(metrics, "monitor_failures_total", cause="non_finite") == 1
    assert value(metrics, "monitor_failures_total", cause="other") == 1
    assert value(metrics, "tokens_unscored_total", cause="non_finite") == 3
    assert value(metrics, "tokens_truncated_total") == 4
    assert value(metrics, "fail_open_requests_total", cause="non_finite") == 0
    assert value(metrics, "verdicts_total", status="unknown", action="block") == 2
    assert value(metrics, "verdicts_total", status="checked", action="allow") == 1
    assert sum(value(metrics, "monitor_failures_total", cause=cause) for cause in FAILURES) == 2


def test_a_request_that_passed_unscored_is_counted_as_let_through(metrics):
    metrics.judged(Verdict(Status.UNKNOWN, Action.ALLOW, Coverage(5, 0), failure="tap_missed"))
    metrics.judged(Verdict(Status.UNKNOWN, Action.ALERT, Coverage(5, 0), failure="made up"))
    assert value(metrics, "fail_open_requests_total", cause="tap_missed") == 1
    assert value(metrics, "fail_open_requests_total", cause="other") == 1


class Scripted:
    """An Observer that says what it was told to say."""

    def __init__(self, begin=None, *decisions):
        begin = begin or Decision()
        self._begin, self._decisions = begin, list(decisions)
        self.seen = []

    def begin(self):
        return self._begin

    def observe(self, block):
        self.seen.append(block)
        return self._decisions.pop(0) if self._decisions else self._begin

    def failed(self, cause):
        self.seen.append(cause)
        return self._begin


def block(start, tokens):
    return TokenBlock(Phase.PROMPT, start, (1,) * tokens, np.zeros((tokens, 2), np.float32))


def test_the_observer_hands_everything_on(metrics):
    chosen, meter = full(metrics)
    said = Decision(action=Action.ALERT)
    inner = Scripted(Decision(clamps=(Clamp(1, 1.0),)), said)
    observer = MeteredObserver(inner, metrics, meter, chosen.policies)
    assert observer.begin() is inner.begin()
    first = block(0, 3)
    assert observer.observe(first) is said
    assert observer.failed("gap") is inner.begin()
    assert inner.seen == [first, "gap"]


def test_clamps_that_hold_from_the_start_suppress_from_the_start(metrics):
    chosen, meter = full(metrics)
    observer = MeteredObserver(
        Scripted(Decision(clamps=(Clamp(7, -2.0), Clamp(5, 0.0)))), metrics, meter, chosen.policies
    )
    observer.begin()
    observer.observe(block(0, 3))
    observer.observe(block(3, 1))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 4
    assert value(metrics, "suppressed_tokens_total", policy="weapons") == 0


def test_suppression_ends_where_the_rules_release_it(metrics):
    chosen, meter = full(metrics)
    holding, released = Decision(suppressing=("deception",)), Decision()
    observer = MeteredObserver(Scripted(None, holding, released, released), metrics, meter, chosen.policies)
    observer.begin()
    for start, tokens in [(0, 3), (3, 2), (5, 4)]:
        observer.observe(block(start, tokens))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 2


def test_a_policy_that_blocks_twice_blocked_one_request(metrics):
    chosen, meter = full(metrics)
    first = Detection(
        "weapons", "word", "weapons", Severity.HIGH, Action.BLOCK, Mode.ENFORCE, Phase.PROMPT, 1, 1.0, 0.5
    )
    second = replace(first, phase=Phase.RESPONSE)
    observer = MeteredObserver(
        Scripted(None, Decision((first,)), Decision((second,))), metrics, meter, chosen.policies
    )
    observer.begin()
    observer.observe(block(0, 2))
    observer.observe(block(2, 1))
    assert value(metrics, "blocked_requests_total", policy="weapons") == 1


@pytest.mark.parametrize(("mode", "suppressed"), [(Mode.ENFORCE, 1), (Mode.SHADOW, 0)])
def test_a_rule_in_shadow_suppresses_nothing(metrics, mode, suppressed):
    shadowed = policy("deception", 7, Action.SUPPRESS, mode=mode, clamps=(Clamp(7, -2.0),))
    chosen, meter = full(metrics)
    real = chosen.start(str)
    real.observe(TokenBlock(Phase.PROMPT, 0, (0,), np.zeros((1, len(chosen.watch)), np.float32)))
    row = np.zeros((1, len(chosen.watch)), np.float32)
    row[0, chosen.watch.column(7)] = 1
    (found,) = real.observe(TokenBlock(Phase.PROMPT, 1, (1,), row)).detections
    fired = Decision((replace(found, mode=mode),), Action.ALLOW)
    observer = MeteredObserver(Scripted(Decision(), fired), metrics, meter, (shadowed,))
    observer.begin()
    observer.observe(block(0, 1))
    observer.observe(block(1, 1))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == suppressed


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
