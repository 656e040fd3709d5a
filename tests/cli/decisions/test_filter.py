"""`decisions filter`: conditions, times and names."""

import dataclasses

import pytest

from monitor.cli.decisions.filter import Conditions, conditions, instant, one_of
from monitor.errors import InputError
from monitor.records import Action, Coverage, Digests, Severity, Status
from monitor.telemetry.decisions.record import DecisionRecord
from tests.cli.decisions.logged import seqs
from tests.telemetry.decisions.test_record import DETECTION


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], [1, 2, 3, 4]),
        (["--policy", "deception"], [2]),
        (["--policy", "weapons", "--rule", "word"], [3]),
        (["--policy", "deception", "--rule", "other"], []),
        (["--severity", "high"], [2, 3]),
        (["--severity", "critical"], []),
        (["--action", "suppress"], [2, 3, 4]),
        (["--action", "block", "--status", "checked"], [3]),
        (["--status", "unknown"], [4]),
        (["--since", "1h"], [1, 2, 3, 4]),
        (["--until", "2020-01-01"], []),
        (["--caller", "somebody"], []),
    ],
)
def test_filter(run, logged, arguments, expected):
    done = run("decisions", "filter", *arguments, "--log", logged[0])
    assert done.exit_code == 0, done.stderr
    assert seqs(done.stdout) == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--severity", "bad"], "there is no severity 'bad'; there are low, medium, high, critical"),
        (["--since", "yesterday"], "'yesterday' is no time; write 2026-11-22"),
    ],
)
def test_wrong_conditions_are_explained(run, logged, arguments, said):
    done = run("decisions", "filter", *arguments, "--log", logged[0])
    assert done.exit_code == 2
    assert said in done.stderr


def test_times():
    assert instant("2h", lambda: 10_000.0) == 10_000.0 - 7200
    assert instant("1970-01-02") == 86400
    assert instant("1970-01-01T01:00+01:00") == 0
    with pytest.raises(InputError):
        instant("2x")


RECORD = DecisionRecord(
    request_id="r",
    time=1000.0,
    seconds=0.1,
    method="Score",
    outcome="answered",
    status=Status.CHECKED,
    action=Action.SUPPRESS,
    digests=Digests("m", "d", "p"),
    coverage=Coverage(3, 3),
    detections=(
        DETECTION,
        dataclasses.replace(DETECTION, policy="greed", rule="wants", severity=Severity.LOW),
    ),
    caller="gateway",
    session="s",
)


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ({}, True),
        ({"policy": "greed"}, True),
        ({"policy": "envy"}, False),
        ({"policy": "greed", "rule": "wants"}, True),
        ({"policy": "greed", "rule": "stated"}, False),
        ({"policy": "greed", "severity": Severity.HIGH}, False),
        ({"policy": "deception", "severity": Severity.MEDIUM}, True),
        ({"action": Action.ALERT}, True),
        ({"action": Action.BLOCK}, False),
        ({"status": Status.UNKNOWN}, False),
        ({"caller": "gateway", "session": "s"}, True),
        ({"caller": "gateway", "session": "t"}, False),
        ({"since": 1000.0}, True),
        ({"until": 1000.0}, False),
        ({"since": 999.0, "until": 1001.0}, True),
    ],
)
def test_one_detection_must_meet_all_that_is_asked_of_detections(asked, held):
    assert Conditions(**asked).hold(RECORD) is held


def test_names_are_read_in_any_case_and_others_are_listed():
    made = conditions(None, None, "HIGH", "Block", "unknown", None, None, "1970-01-02", None)
    assert (made.severity, made.action, made.status) == (Severity.HIGH, Action.BLOCK, Status.UNKNOWN)
    assert (made.since, made.until) == (86400.0, None)
    assert one_of("action", None, {}) is None
    with pytest.raises(
        InputError, match="there is no action 'stop'; there are allow, alert, suppress, block"
    ):
        conditions(None, None, None, "stop", None, None, None, None, None)
