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

from monitor.policy.policyset import PolicySet
from monitor.records import (
    Action,
    Blocks,
    Clamp,
    Coverage,
    Decision,
    Detection,
    Digests,
    Failure,
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
    metrics.decision_log.displaced("removed", 7)
    metrics.decision_log.displaced("moved", 5)
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


def test_a_log_file_that_others_took_away_moves_a_metric_and_only_a_removed_one_loses_records(metrics):
    assert value(metrics, "decision_log_displaced_files_total", cause="truncated") == 0
    full(metrics)
    assert value(metrics, "decision_log_displaced_files_total", cause="removed") == 1
    assert value(metrics, "decision_log_displaced_files_total", cause="moved") == 1
    assert value(metrics, "decision_log_dropped_total", cause="removed") == 7


def test_the_dictionary_is_not_measured_until_it_is(metrics):
    assert math.isnan(value(metrics, "dictionary_l0"))
    metrics.dictionary_measured(31.5, 0.8, 0.02)
    assert value(metrics, "dictionary_l0") == 31.5
    assert value(metrics, "dictionary_explained_variance_ratio") == 0.8
    assert value(metrics, "dictionary_norm_outliers_ratio") == 0.02


def test_an_unscored_request_is_counted_by_cause(metrics):
    coverage = Coverage(10, 7, 4)
    metrics.judged(Verdict(Status.UNKNOWN, Action.BLOCK, coverage, failure=Failure.NON_FINITE))
    metrics.judged(Verdict(Status.UNKNOWN, Action.BLOCK, Coverage(5, 5), failure=Failure.GAP))
    metrics.judged(Verdict(Status.CHECKED, Action.ALLOW, Coverage(5, 5)))
    assert value(metrics, "monitor_failures_total", cause="non_finite") == 1
    assert value(metrics, "monitor_failures_total", cause="gap") == 1
    assert value(metrics, "tokens_unscored_total", cause="non_finite") == 3
    assert value(metrics, "tokens_truncated_total") == 4
    assert value(metrics, "fail_open_requests_total", cause="non_finite") == 0
    assert value(metrics, "verdicts_total", status="unknown", action="block") == 2
    assert value(metrics, "verdicts_total", status="checked", action="allow") == 1
    assert sum(value(metrics, "monitor_failures_total", cause=cause) for cause in FAILURES) == 2


def test_a_request_that_passed_unscored_is_counted_as_let_through(metrics):
    metrics.judged(Verdict(Status.UNKNOWN, Action.ALLOW, Coverage(5, 0), failure=Failure.TAP_MISSED))
    metrics.judged(Verdict(Status.UNKNOWN, Action.ALERT, Coverage(5, 0), failure=Failure.GAP))
    assert value(metrics, "fail_open_requests_total", cause="tap_missed") == 1
    assert value(metrics, "fail_open_requests_total", cause="gap") == 1


class Scripted:
    """One request and its observer, which says what it was told to say."""

    slot = 0

    def __init__(self, first=None, *decisions):
        self.first, self._decisions = first or Decision(), list(decisions)
        self.seen = []

    def observe_batch(self, blocks):
        self.seen.append(blocks)
        decision = self._decisions.pop(0) if self._decisions else None
        return {} if decision is None else {0: decision}


def block(start, tokens, slot=0):
    readings = np.zeros((tokens, 2), np.float32)
    return Blocks.of([(slot, TokenBlock(Phase.PROMPT, start, (1,) * tokens, readings))])


def metered(inner, metrics, meter):
    observer = MeteredObserver(inner, metrics, meter)
    observer.open(inner)
    return observer


def test_the_observer_hands_everything_on(metrics):
    _, meter = full(metrics)
    said = Decision(action=Action.ALERT)
    inner = Scripted(Decision(clamps=(Clamp(1, 1.0),)), said)
    observer = metered(inner, metrics, meter)
    first, second = block(0, 3), block(3, 1)
    assert observer.observe_batch(first) == {0: said}
    assert observer.observe_batch(second) == {}
    assert inner.seen == [first, second]


def test_clamps_that_hold_from_the_start_suppress_from_the_start(metrics):
    _, meter = full(metrics)
    first = Decision(clamps=(Clamp(7, -2.0),), suppressing=("deception",))
    observer = metered(Scripted(first), metrics, meter)
    observer.observe_batch(block(0, 3))
    observer.observe_batch(block(3, 1))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 4
    assert value(metrics, "suppressed_tokens_total", policy="weapons") == 0


def test_suppression_ends_where_the_rules_release_it(metrics):
    _, meter = full(metrics)
    observer = metered(Scripted(None, Decision(suppressing=("deception",)), Decision()), metrics, meter)
    for start, tokens in [(0, 3), (3, 2), (5, 4)]:
        observer.observe_batch(block(start, tokens))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 2


def test_what_could_not_be_scored_is_not_counted_as_scored(metrics):
    _, meter = full(metrics)
    failed = Decision(failure=Failure.GAP)
    observer = metered(Scripted(Decision(suppressing=("deception",)), failed), metrics, meter)
    observer.observe_batch(block(0, 3))
    assert value(metrics, "tokens_scored_total", phase="prompt") == 0
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 0


def test_a_slot_that_another_request_has_begins_anew(metrics):
    _, meter = full(metrics)
    inner = Scripted(None, Decision(suppressing=("deception",)))
    observer = metered(inner, metrics, meter)
    observer.observe_batch(block(0, 3))
    observer.open(inner)
    observer.observe_batch(block(0, 3))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 0


def test_a_policy_that_blocks_twice_blocked_one_request(metrics):
    _, meter = full(metrics)
    first = Detection(
        "weapons", "word", "weapons", Severity.HIGH, Action.BLOCK, Mode.ENFORCE, Phase.PROMPT, 1, 1.0, 0.5
    )
    second = replace(first, phase=Phase.RESPONSE)
    observer = metered(Scripted(None, Decision((first,)), Decision((second,))), metrics, meter)
    observer.observe_batch(block(0, 2))
    observer.observe_batch(block(2, 1))
    assert value(metrics, "blocked_requests_total", policy="weapons") == 1


@pytest.mark.parametrize(("mode", "suppressed"), [(Mode.ENFORCE, 1), (Mode.SHADOW, 0)])
def test_a_rule_in_shadow_suppresses_nothing(metrics, mode, suppressed):
    shadowed = policy("deception", 7, Action.SUPPRESS, mode=mode, clamps=(Clamp(7, -2.0),))
    _, meter = full(metrics)
    rules = PolicySet((shadowed,), "")
    observer, judge = MeteredObserver(rules.rules, metrics, meter), rules.start(str)
    observer.open(judge)
    for start, reading in ((0, 0.0), (1, 1.0), (2, 0.0)):
        rows = np.full((1, 1), reading, np.float32)
        observer.observe_batch(Blocks.of([(judge.slot, TokenBlock(Phase.PROMPT, start, (start,), rows))]))
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
