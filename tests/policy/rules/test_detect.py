"""What detections and rules' scores say, through an observer of one request."""

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.schema.expression import AllOf, AnyOf, NotOf
from monitor.policy.schema.policy import Mean
from monitor.records import Action, Coverage, Mode, Phase, Severity
from tests.policy.conftest import block, policy, rule, word


def condition(name, feature, **more):
    return Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=0.5, **more)


def started(*policies):
    return PolicySet(tuple(policies), "").start(word)


def scores(observer, tokens):
    return observer.verdict(Coverage(tokens, tokens)).scores


def test_a_detection_says_what_its_policy_and_rule_say():
    quiet = rule(
        "quiet",
        severity=Severity.LOW,
        action=Action.BLOCK,
        mode=Mode.SHADOW,
        threshold=0.25,
        features=((4, 2.0),),
    )
    observer = started(policy(rule("other", threshold=9.0), quiet, name="words", category="spam"))
    (found,) = observer.observe(block([[0, 0], [0, 0.1], [0, 0.5]])).detections
    assert (found.policy, found.rule, found.category) == ("words", "quiet", "spam")
    assert (found.severity, found.action, found.mode) == (Severity.LOW, Action.BLOCK, Mode.SHADOW)
    assert (found.phase, found.position) == (Phase.PROMPT, 2)
    assert (found.score, found.threshold, found.conditions) == (1.0, 0.25, ())
    assert [(each.position, each.condition) for each in found.evidence] == [(2, ""), (1, "")]


def test_a_detection_knows_only_the_tokens_up_to_its_own():
    (found,) = started(policy(rule())).observe(block([[0], [0.25], [0.75], [2.0]])).detections
    assert (found.position, found.score) == (2, 0.75)
    assert [each.score for each in found.evidence] == [0.75, 0.25]


def test_a_threshold_by_length_is_told_as_it_stood_at_the_token():
    one = policy(rule(threshold=0.25, lengths=((2, 2.0), (None, 0.25))))
    (found,) = started(one).observe(block([[0], [1.0], [0.0], [0.5]])).detections
    assert (found.position, found.score, found.threshold) == (3, 0.5, 0.25)


def test_a_combined_detection_tells_the_margin_of_the_condition_that_decides():
    conditions = (condition("a", 0), condition("b", 1), condition("c", 2))
    expression = AllOf(all=["a", AnyOf(any=["b", "c"])])
    one = policy(rule(features=(), when=expression), conditions=conditions)
    observer = started(one)
    assert observer.observe(block([[0, 0, 0], [0.75, 0.25, 0]])).detections == ()
    (found,) = observer.observe(block([[0, 0, 1.5]], 2)).detections
    assert (found.score, found.threshold, found.position) == (0.25, 0.0, 2)
    assert [(c.name, c.score, c.reached) for c in found.conditions] == [
        ("a", 0.75, True),
        ("b", 0.25, False),
        ("c", 1.5, True),
    ]


def test_evidence_of_conditions_takes_turns_and_leaves_out_those_that_do_not_hold():
    conditions = (condition("a", 0), condition("b", 1), condition("c", 2))
    expression = AllOf(all=["a", "b", NotOf.model_validate({"not": "c"})])
    one = policy(rule(features=(), when=expression), conditions=conditions)
    rows = [[0, 0, 0], [0.75, 0, 0.25], [0.625, 0, 0], [0.875, 0, 0], [1.0, 0, 0], [0, 0.625, 0]]
    (found,) = started(one).observe(block(rows)).detections
    assert [(each.condition, each.position) for each in found.evidence] == [
        ("a", 4),
        ("b", 5),
        ("a", 3),
        ("a", 1),
        ("a", 2),
    ]


def test_scores_are_told_of_rules_that_looked_in_the_order_of_the_policies():
    first = policy(rule("a", threshold=3.0), rule("late", phases=(Phase.RESPONSE,)), name="p")
    second = policy(rule("when", features=(), when="x"), rule("b"), conditions=(condition("x", 7),), name="q")
    observer = started(first, second)
    observer.observe(block([[0, 0], [0.25, 0.125], [0.125, 0.375]]))
    assert [(s.policy, s.rule, s.score, s.threshold) for s in scores(observer, 3)] == [
        ("p", "a", 0.25, 3.0),
        ("q", "when", -0.125, 0.0),
        ("q", "b", 0.25, 0.5),
    ]
    assert [(c.name, c.score, c.reached) for c in scores(observer, 3)[1].conditions] == [("x", 0.375, False)]


def test_scores_of_both_phases_are_told_each_with_its_phase():
    observer = started(policy(rule(threshold=9.0)))
    observer.observe(block([[0], [0.5]]))
    observer.observe(block([[0.25]], 2, Phase.RESPONSE))
    assert [(s.phase, s.score) for s in scores(observer, 3)] == [
        (Phase.PROMPT, 0.5),
        (Phase.RESPONSE, 0.25),
    ]


def test_rules_that_no_token_counted_for_have_no_score():
    observer = started(policy(rule("short", threshold=9.0), rule("long", hold=3)))
    observer.observe(block([[0], [1.0], [1.0]]))
    assert [s.rule for s in scores(observer, 3)] == ["short"]
    observer.observe(block([[0.25]], 3))
    assert [(s.rule, s.score) for s in scores(observer, 4)] == [("short", 1.0), ("long", 0.25)]


@pytest.mark.parametrize("cuts", [[8], [1] * 8, [3, 5]])
def test_scores_do_not_depend_on_how_a_text_was_cut(cuts):
    rng = np.random.default_rng(8)
    readings = rng.exponential(0.4, (8, 1)).astype(np.float32)
    lengths = ((3, 0.9), (None, 0.6))
    observer = started(
        policy(rule("a", threshold=9.0), rule("m", pooling=Mean(), threshold=0.6, lengths=lengths))
    )
    done = 0
    for size in cuts:
        observer.observe(block(readings[done : done + size], done))
        done += size
    series = readings[1:, 0].astype(np.float64)
    means = np.cumsum(series) / np.maximum(np.arange(1, 8), Mean().min_tokens)
    limits = np.where(np.arange(1, 8) <= 3, 0.9, 0.6)
    at = int(np.argmax(means - limits))
    first, second = scores(observer, 8)
    assert first.score == pytest.approx(series.max())
    assert (second.score, second.threshold) == (pytest.approx(means[at]), limits[at])
