"""What a record is as JSON: complete, exact, stable, and without text."""

import dataclasses
import json
import math

import pytest

from monitor.records import (
    Action,
    ConditionScore,
    Coverage,
    Detection,
    Digests,
    Evidence,
    FeatureReading,
    Mode,
    Phase,
    RuleScore,
    Severity,
    Status,
    Suppression,
)
from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.record import DecisionRecord, from_json, to_json

EVIDENCE = Evidence(5, 77, "secret", 0.75, (FeatureReading(7, 0.25, 0.5), FeatureReading(9, 1.0)))
DETECTION = Detection(
    "deception", "stated", "deception", Severity.HIGH, Action.SUPPRESS, Mode.ENFORCE, Phase.RESPONSE,
    5, 1.5, 0.5, (EVIDENCE,), (ConditionScore("lies", 1.5, 0.5, True),),
)  # fmt: skip
RECORD = DecisionRecord(
    request_id="3f2a", time=1795351021.25, seconds=0.125, method="Generate", outcome="answered",
    status=Status.CHECKED, action=Action.SUPPRESS, digests=Digests("m", "d", "p"), coverage=Coverage(12, 12, 3),
    detections=(DETECTION,), scores=(RuleScore("deception", "stated", Phase.PROMPT, 0.25, 0.5),),
    suppressions=(Suppression("deception", (7,), 4, 0.5, 0.0),),
    finish="length", tokens_generated=4, trace_id="t", session="s", caller="gateway",
)  # fmt: skip

SCHEMA_1 = (
    '{"schema": 1, "kind": "decision", "request_id": "3f2a", "time": "2026-11-22T12:37:01.250000+00:00", '
    '"seconds": 0.125, "method": "Generate", "outcome": "answered", "status": "checked", "action": "suppress", '
    '"digests": {"model": "m", "dictionary": "d", "policies": "p"}, '
    '"coverage": {"tokens_run": 12, "tokens_scored": 12, "tokens_truncated": 3}, '
    '"detections": [{"policy": "deception", "rule": "stated", "category": "deception", "severity": "high", '
    '"action": "suppress", "mode": "enforce", "phase": "response", "position": 5, "score": 1.5, "threshold": 0.5, '
    '"evidence": [{"position": 5, "score": 0.75, "readings": [{"feature": 7, "reading": 0.25, "after": 0.5}, '
    '{"feature": 9, "reading": 1.0}]}], "conditions": [{"name": "lies", "score": 1.5, "threshold": 0.5, '
    '"reached": true}]}], "scores": [{"policy": "deception", "rule": "stated", "phase": "prompt", "score": 0.25, '
    '"threshold": 0.5}], "suppressions": [{"policy": "deception", "features": [7], "tokens_edited": 4, '
    '"before": 0.5, "after": 0.0}], "finish": "length", "tokens_generated": 4, "trace_id": "t", "session": "s", '
    '"caller": "gateway"}'
)
"""As written by the first version. A change that breaks this needs another schema number."""


def test_logs_of_the_first_version_stay_readable():
    bare = dataclasses.replace(EVIDENCE, token_id=0, text="")
    expected = dataclasses.replace(RECORD, detections=(dataclasses.replace(DETECTION, evidence=(bare,)),))
    assert from_json(json.loads(SCHEMA_1)) == expected


def test_a_record_is_written_as_its_schema_says():
    written = json.loads(json.dumps(to_json(RECORD)))
    for key, value in json.loads(SCHEMA_1).items():
        assert written[key] == value, key
    assert "secret" not in json.dumps(written)


def test_fields_of_a_later_version_are_passed_over_and_missing_ones_are_named():
    content = json.loads(SCHEMA_1)
    assert from_json({**content, "later": 1}).request_id == "3f2a"
    del content["method"]
    with pytest.raises(ValueError, match=r"lacks one of .*method"):
        from_json(content)
    with pytest.raises(ValueError, match="schema 2; this version reads 1"):
        from_json({**content, "schema": 2})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"action": "explode"}, "no Action 'explode'"),
        ({"coverage": 3}, "expected a Coverage"),
        ({"detections": [{"policy": 3}]}, "expected str, found int"),
        ({"scores": {}}, "expected a list"),
    ],
)
def test_content_of_another_type_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        from_json({**json.loads(SCHEMA_1), **change})


def test_infinite_scores_do_not_lose_a_record():
    worst = dataclasses.replace(RECORD, scores=(RuleScore("a", "b", Phase.PROMPT, -math.inf, math.inf),))
    assert math.isnan(from_json(json.loads(lines.body(to_json(worst)))).scores[0].score)
