"""Label values of policies and detections, and the trace that exemplars lead to."""

import contextvars

import pytest

from monitor.policy.policy import WeightedFeature
from monitor.records import Action, Detection, Mode, Phase, Severity
from monitor.telemetry.metrics.labels import (
    DETECTION,
    exemplar,
    of_detection,
    of_policy,
    of_rule,
    trace_id,
    watched_by,
)
from tests.policy.conftest import policy, rule


def test_a_rule_has_the_labels_that_its_detections_will_have():
    one = rule("stated", severity=Severity.LOW, action=Action.BLOCK, mode=Mode.SHADOW)
    owner = policy(one, name="greed", category="wants")
    found = list(of_rule(owner, one))
    assert found == [
        ("greed", "stated", "wants", "low", "block", "shadow", "prompt"),
        ("greed", "stated", "wants", "low", "block", "shadow", "response"),
    ]
    detection = Detection(
        "greed", "stated", "wants", Severity.LOW, Action.BLOCK, Mode.SHADOW, Phase.RESPONSE, 4, 1.0, 0.5
    )
    assert of_detection(detection) == found[1]
    assert len(DETECTION) == len(found[0])
    assert of_policy(owner) == ("greed", "wants", "high", "beta")


def test_features_of_a_policy_by_their_greatest_weight():
    rules = (rule("a", ((3, 0.2), (5, -0.9), (7, 0.5))), rule("b", ((3, 0.7), (5, 0.1))))
    assert watched_by([policy(*rules, name="p"), policy(name="empty")]) == {"p": [5, 3, 7], "empty": []}
    assert WeightedFeature(3, 0.2).label == ""


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("", None),
        ("0af7651916cd43dd8448eb211c80319c", {"trace_id": "0af7651916cd43dd8448eb211c80319c"}),
        ("0AF7651916CD43DD8448EB211C80319C", None),
        ("0af7651916cd43dd8448eb211c80319", None),
        ("0af7651916cd43dd8448eb211c80319x", None),
    ],
)
def test_only_a_trace_id_leads_to_a_trace(given, found):
    def inside():
        trace_id.set(given)
        return exemplar()

    assert contextvars.copy_context().run(inside) == found
    assert exemplar() is None, "the next task has no trace of the one before"
