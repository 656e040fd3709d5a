import pytest

from monitor.errors import BadRequest
from monitor.records import (
    Action,
    Coverage,
    Detection,
    Digests,
    Evidence,
    Failure,
    Mode,
    Phase,
    Severity,
    Status,
)
from monitor.rpc.wire.decisions import as_json, request, response, watched
from monitor.telemetry.decisions.record import DecisionRecord
from monitor.v1 import monitor_pb2 as pb


def detection(policy="a", severity=Severity.HIGH, mode=Mode.ENFORCE):
    evidence = (Evidence(3, 0, "", 0.5),)
    return Detection(policy, "r", "c", severity, Action.ALERT, mode, Phase.PROMPT, 3, 0.5, 0.25, evidence)


def record(*detections, status=Status.CHECKED, **more):
    fields = {
        "request_id": "id",
        "time": 1_700_000_000.25,
        "seconds": 0.5,
        "method": "Score",
        "outcome": "answered",
        "action": Action.ALERT,
        "digests": Digests("m", "d", "p"),
        "coverage": Coverage(4, 3, 2),
    }
    return DecisionRecord(**{**fields, "detections": tuple(detections), "status": status, **more})


def asked(**fields):
    return watched(pb.WatchDetectionsRequest(**fields))


def passed(wanted, *detections):
    return [found.policy for found in wanted.detections(record(*detections))]


def test_without_a_filter_all_enforced_detections_pass():
    several = [detection(str(severity), severity) for severity in Severity]
    assert passed(asked(), *several, detection("quiet", mode=Mode.SHADOW)) == [str(s) for s in Severity]


def test_rules_in_shadow_pass_where_asked_for():
    assert passed(asked(include_shadow=True), detection("quiet", mode=Mode.SHADOW)) == ["quiet"]


def test_only_the_named_policies_pass():
    wanted = asked(policies=["b", "c"])
    assert passed(wanted, detection("a"), detection("b"), detection("c")) == ["b", "c"]


@pytest.mark.parametrize("minimum", list(Severity))
def test_severities_pass_from_the_lowest_that_is_wanted(minimum):
    ranked = list(Severity)
    wanted = asked(minimum_severity=pb.Severity.Value(f"SEVERITY_{minimum.name}"))
    several = [detection(severity.value, severity) for severity in ranked]
    assert passed(wanted, *several) == [s.value for s in ranked[ranked.index(minimum) :]]


@pytest.mark.parametrize(
    ("fields", "one", "wanted"),
    [
        ({}, record(detection()), True),
        ({}, record(), False),
        ({"policies": ["b"]}, record(detection()), False),
        ({}, record(status=Status.UNKNOWN), False),
        ({"include_unknown": True}, record(status=Status.UNKNOWN), True),
        ({"include_unknown": True, "policies": ["b"]}, record(status=Status.UNKNOWN), True),
        ({"include_unknown": True}, record(), False),
    ],
)
def test_records_are_wanted_for_a_detection_or_for_what_was_not_checked(fields, one, wanted):
    assert asked(**fields).wants(one) is wanted


def test_every_wrong_field_of_a_filter_is_named():
    with pytest.raises(BadRequest) as caught:
        asked(policies=["a", "", "b", ""], minimum_severity=99)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["policies[1]", "policies[3]", "minimum_severity"]


def test_a_message_tells_a_record_with_the_detections_that_pass():
    one = record(
        detection("a"),
        detection("b"),
        trace_id="t",
        session="s",
        caller="c",
        status=Status.UNKNOWN,
        failure=Failure.INCOMPLETE,
    )
    told = response(None, one, asked(policies=["b"]), 7)
    assert told.dropped == 7
    assert abs(told.time.ToNanoseconds() - 1_700_000_000_250_000_000) < 1000
    assert (told.request_id, told.trace_id, told.session_id, told.caller) == ("id", "t", "s", "c")
    assert (told.method, told.outcome, told.failure) == ("Score", "answered", "incomplete")
    assert (told.status, told.action) == (pb.CHECK_STATUS_UNKNOWN, pb.ACTION_ALERT)
    assert [(found.policy, found.position) for found in told.detections] == [("b", 3)]
    assert (told.digests.model, told.digests.dictionary, told.digests.policies) == ("m", "d", "p")
    assert (told.coverage.tokens_run, told.coverage.tokens_scored) == (4, 3)
    assert told.coverage.tokens_truncated == 2


def test_other_doors_ask_with_the_same_message_and_answer_in_json():
    found = watched(request(["a"], shadow=True, unknown=False, after="ab-7"))
    assert (found.policies, found.shadow, found.unknown) == (frozenset({"a"}), True, False)
    assert (found.after.log, found.after.record) == ("ab", 7)
    assert watched(request([], shadow=False, unknown=True, after=None)).after is None
    said = as_json(pb.WatchDetectionsResponse(cursor="ab-7", request_id="r", session_id="s"))
    assert said == {"cursor": "ab-7", "request_id": "r", "session_id": "s"}
