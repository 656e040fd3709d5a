import numpy as np
import pytest

from monitor.http.openai import verdicts
from monitor.records import (
    Action,
    Coverage,
    Detection,
    Digests,
    Evidence,
    Failure,
    Mode,
    Phase,
    ScoredTokens,
    Severity,
    Status,
    Suppression,
    Verdict,
)

DIGESTS = Digests("m", "d", "p")


def detection(policy="p"):
    return Detection(
        policy,
        "r",
        "c",
        Severity.HIGH,
        Action.BLOCK,
        Mode.ENFORCE,
        Phase.RESPONSE,
        9,
        0.75,
        0.5,
        (Evidence(8, 108, "word", 0.75),),
    )


def verdict(*detections, status=Status.CHECKED, action=Action.ALLOW, **more):
    return Verdict(status, action, Coverage(4, 4), tuple(detections), **more)


CLEAN = verdict()
ALERT = verdict(detection("a"), action=Action.ALERT)
BLOCKED = verdict(detection("b"), detection("a"), action=Action.BLOCK)
UNKNOWN = verdict(status=Status.UNKNOWN, failure=Failure.GAP)


@pytest.mark.parametrize(
    ("several", "status", "action", "matched"),
    [
        ([CLEAN], "checked", "allow", False),
        ([CLEAN, ALERT], "checked", "alert", True),
        ([BLOCKED, ALERT, CLEAN], "checked", "block", True),
        ([ALERT, UNKNOWN], "unknown", "alert", True),
        ([UNKNOWN, CLEAN], "unknown", "allow", False),
    ],
)
def test_in_short_it_is_the_strictest_of_all_choices(several, status, action, matched):
    told = verdicts.extension("id-1", several, DIGESTS)
    assert (told["status"], told["action"], told["matched"]) == (status, action, matched)
    assert (told["request_id"], len(told["verdicts"])) == ("id-1", len(several))
    assert told["digests"] == {"model": "m", "dictionary": "d", "policies": "p"}
    headers = verdicts.headers(several)
    assert headers["x-sae-monitor-status"] == status
    assert headers["x-sae-monitor-action"] == action
    assert headers["x-sae-monitor-matched"] == ("true" if matched else "false")


def test_headers_name_every_policy_that_fired_once_in_order():
    assert verdicts.headers([BLOCKED, ALERT])["x-sae-monitor-policies"] == "b,a"
    assert verdicts.headers([CLEAN])["x-sae-monitor-policies"] == ""


def test_a_verdict_has_the_words_of_the_decision_log():
    told = verdicts.verdict(BLOCKED)
    assert (told["status"], told["action"], told["matched"]) == ("checked", "block", True)
    assert [found["policy"] for found in told["detections"]] == ["b", "a"]
    assert told["coverage"]["tokens_scored"] == 4
    assert "failure" not in told
    assert verdicts.verdict(UNKNOWN)["failure"] == "gap"


def test_a_suppression_says_whether_it_held():
    several = (Suppression("p", (3,), 5, 2.0, 0.0), Suppression("q", (4,), 5, 2.0, 1.5))
    told = verdicts.verdict(verdict(suppressions=several))["suppressions"]
    assert [(one["policy"], one["held"]) for one in told] == [("p", True), ("q", False)]


def test_detections_are_told_with_their_evidence():
    (told,) = verdicts.detections([detection()])
    assert (told["rule"], told["severity"], told["phase"], told["position"]) == ("r", "high", "response", 9)
    assert [(e["position"], e["text"]) for e in told["evidence"]] == [(8, "word")]
    assert verdicts.detections([]) == []


def test_tokens_are_told_with_the_readings_that_are_not_zero():
    readings = np.asarray([[0.5, 0.0], [0.0, 0.0]], np.float32)
    part = ScoredTokens(Phase.PROMPT, 1, (101, 102), np.asarray([3, 7]), readings)
    first, second = verdicts.tokens([None, part], lambda ids: [f"<{one}>" for one in ids])
    assert (first["position"], first["token_id"], first["text"]) == (1, 101, "<101>")
    assert [(r["feature"], r["reading"]) for r in first["readings"]] == [(3, 0.5)]
    assert not second.get("readings")
