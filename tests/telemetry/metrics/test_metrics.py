"""Names, labels and what each event adds."""

import shutil
import subprocess

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from monitor.records import (
    Action,
    Coverage,
    Failure,
    Status,
    Verdict,
)
from monitor.telemetry.metrics.metrics import FAILURES
from tests.telemetry.metrics.measured import full, value


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
