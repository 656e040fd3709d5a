"""Results of moderations."""

import math

import pytest

from monitor.http.openai.moderations import STANDARD, result, scaled
from monitor.records import Action, Coverage, Detection, Mode, Phase, RuleScore, Severity, Status, Verdict
from tests.rpc.fake import policy


@pytest.mark.parametrize(
    ("score", "threshold", "found"),
    [
        (0.5, 0.5, 0.5),
        (1.0, 0.5, 1 / (1 + math.exp(-4))),
        (0.0, 0.5, 1 / (1 + math.exp(4))),
        (0.0, 0.0, 0.5),
        (-2.0, -1.0, 1 / (1 + math.exp(4))),
        (-math.inf, 0.5, 0.0),
        (math.nan, 0.5, 0.0),
    ],
)
def test_scores_are_scaled_so_that_the_threshold_is_a_half(score, threshold, found):
    assert scaled(score, threshold) == pytest.approx(found)


def detection(mode, action=Action.ALERT):
    return Detection("p", "word", "deceit", Severity.HIGH, action, mode, Phase.PROMPT, 1, 2.0, 0.5)


def test_only_enforced_rules_flag():
    policies = [policy("p", 7, Action.ALERT, category="deceit"), policy("q", 8, Action.ALERT)]
    scores = (
        RuleScore("p", "word", Phase.PROMPT, 2.0, 0.5),
        RuleScore("p", "word", Phase.RESPONSE, 0.0, 0.5),
    )
    for mode, flagged in ((Mode.ENFORCE, True), (Mode.SHADOW, False)):
        verdict = Verdict(Status.CHECKED, Action.ALLOW, Coverage(3, 3), (detection(mode),), scores)
        found = result(verdict, policies)
        assert found["flagged"] is flagged
        assert found["categories"]["deceit"] is flagged
        assert found["category_scores"]["deceit"] > 0.99
        assert found["category_applied_input_types"]["deceit"] == ["text"]


def test_what_nobody_measured_is_said_to_be_applied_to_nothing():
    found = result(Verdict(Status.CHECKED, Action.ALLOW, Coverage(3, 3)), [])
    assert set(found["categories"]) == set(STANDARD)
    assert not any(found["categories"].values())
    assert set(map(tuple, found["category_applied_input_types"].values())) == {()}
