from dataclasses import replace

import pytest

from monitor.errors import MonitoringFailed, Unavailable
from monitor.records import (
    Action,
    Coverage,
    Detection,
    Evidence,
    Failure,
    Mode,
    Phase,
    Severity,
    Status,
    Suppression,
    Verdict,
)
from monitor.rpc.error_status import REFUSED_TEXT
from monitor.rpc.verdict import conclude, refusal, shown
from monitor.telemetry.metrics.metrics import Metrics
from tests.policy.conftest import policy, rule
from tests.telemetry.metrics.measured import value


def detection(name="p", action=Action.BLOCK, mode=Mode.ENFORCE, phase=Phase.RESPONSE, positions=()):
    evidence = tuple(Evidence(p, 100 + p, f"<{p}>", 0.5) for p in positions)
    return Detection(name, "r", "c", Severity.HIGH, action, mode, phase, 9, 0.5, 0.25, evidence)


class Judge:
    """What the rules say; a failure makes it unknown, and blocks where they are closed."""

    def __init__(self, *detections, closed=True, failure=None):
        self.detections, self.closed, self.failure = detections, closed, failure

    def failed(self, failure):
        self.failure = failure

    def verdict(self, coverage):
        asked = [d.action for d in self.detections if d.mode is Mode.ENFORCE]
        asked += [Action.BLOCK] if self.failure is not None and self.closed else []
        status = Status.CHECKED if self.failure is None else Status.UNKNOWN
        action = max(asked, default=Action.ALLOW)
        return Verdict(status, action, coverage, self.detections, failure=self.failure)


def concluded(judge, tokens=4, expected=4, **more):
    return conclude(judge, Metrics(), Coverage(tokens, tokens), expected=expected, **more)


def test_what_the_rules_say_is_the_verdict_with_its_suppressions():
    held = Suppression("p", (3,), 2, 1.0, 0.0)
    found = concluded(Judge(detection(action=Action.ALERT)), suppressions=(held,))
    assert (found.status, found.action, found.matched) == (Status.CHECKED, Action.ALERT, True)
    assert (found.coverage, found.suppressions) == (Coverage(4, 4), (held,))


def test_a_text_that_did_not_run_whole_is_unknown():
    found = concluded(Judge(closed=False), tokens=3)
    assert (found.status, found.failure, found.action) == (Status.UNKNOWN, Failure.INCOMPLETE, Action.ALLOW)
    assert concluded(Judge(), tokens=5).status is Status.CHECKED


def test_a_failure_that_is_known_is_not_written_over():
    judge = Judge(closed=False, failure=Failure.NON_FINITE)
    assert concluded(judge, tokens=3).failure is Failure.NON_FINITE


@pytest.mark.parametrize("tokens", [3, 4])
def test_what_was_not_scored_is_refused_where_a_policy_is_closed(tokens):
    judge, told = Judge(failure=None if tokens < 4 else Failure.GAP), []
    with pytest.raises(MonitoringFailed, match=REFUSED_TEXT) as caught:
        concluded(judge, tokens, judged=told.append)
    assert caught.value.cause == ("incomplete" if tokens < 4 else "gap")
    assert [one.status for one in told] == [Status.UNKNOWN]


def test_a_rule_that_blocks_is_no_refusal_though_something_failed():
    found = concluded(Judge(detection(), failure=Failure.GAP))
    assert (found.status, found.action) == (Status.UNKNOWN, Action.BLOCK)
    quiet = Judge(detection(mode=Mode.SHADOW), failure=Failure.GAP)
    with pytest.raises(MonitoringFailed):
        concluded(quiet)


def test_an_error_about_something_else_is_raised_as_it_is_and_nothing_is_judged():
    told = []
    with pytest.raises(Unavailable, match="gone"):
        concluded(Judge(), error=Unavailable("gone"), judged=told.append)
    assert told == []


def test_an_error_of_monitoring_is_told_in_other_words_after_the_verdict():
    told = []
    with pytest.raises(MonitoringFailed, match=REFUSED_TEXT) as caught:
        concluded(Judge(closed=False), error=MonitoringFailed("layer 3 died", "gap"), judged=told.append)
    assert (caught.value.cause, len(told)) == ("incomplete", 1)


def test_verdicts_are_counted():
    metrics = Metrics()
    conclude(Judge(closed=False), metrics, Coverage(4, 4), expected=4)
    conclude(Judge(closed=False), metrics, Coverage(3, 3), expected=4)
    assert value(metrics, "verdicts_total", status="checked", action="allow") == 1
    assert value(metrics, "monitor_failures_total", cause="incomplete") == 1


def test_evidence_that_was_not_released_is_shown_without_text_and_id():
    found = detection(positions=(3, 7, 8))
    (told,) = shown([found], 8)
    assert [(e.position, e.token_id, e.text) for e in told.evidence] == [
        (3, 103, "<3>"),
        (7, 107, "<7>"),
        (8, 0, ""),
    ]
    assert [e.score for e in told.evidence] == [0.5] * 3
    assert replace(told, evidence=found.evidence) == found


def test_evidence_of_the_prompt_is_shown_whole():
    found = detection(phase=Phase.PROMPT, positions=(3, 7))
    assert shown([found], 0) == (found,)
    assert shown([], 0) == ()


@pytest.mark.parametrize(
    ("detections", "text"),
    [
        ((), ""),
        ((detection("a"),), "A says no"),
        ((detection("silent"), detection("a")), ""),
        ((detection("a", mode=Mode.SHADOW), detection("b")), "B says no"),
        ((detection("a", action=Action.ALERT), detection("b")), "B says no"),
        ((detection("nobody"),), ""),
    ],
)
def test_the_refusal_is_that_of_the_first_policy_that_blocked(detections, text):
    policies = [
        policy(rule(), name="a", refusal="A says no"),
        policy(rule(), name="b", refusal="B says no"),
        policy(rule(), name="silent"),
    ]
    assert refusal(policies, Judge(*detections).verdict(Coverage())) == text
