import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.rules.explain import explain
from monitor.policy.schema.expression import AllOf, AnyOf
from monitor.policy.schema.policy import Mean
from monitor.records import Phase, Signal
from tests.policy.conftest import policy, rule


def condition(name, feature, **more):
    return Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=0.5, **more)


def told(one, readings, phase=Phase.PROMPT):
    return explain((one,), np.asarray(readings, np.float32), phase)


def test_rules_are_told_nearest_to_their_threshold_first():
    one = policy(rule("far", threshold=2.0), rule("fired", threshold=0.2), rule("near", threshold=0.6))
    found = told(one, [[0.0], [0.5]])
    assert [each.rule.name for each in found] == ["fired", "near", "far"]
    assert [each.fired for each in found] == [True, False, False]
    assert [each.threshold - each.score for each in found] == [-0.3, pytest.approx(0.1), 1.5]
    assert {each.policy.name for each in found} == {"p"}


def test_rules_that_do_not_look_at_the_phase_are_not_told():
    one = policy(rule("a", phases=(Phase.PROMPT,)), rule("b", phases=(Phase.RESPONSE,)))
    assert [each.rule.name for each in told(one, [[0], [1]])] == ["a"]
    assert [each.rule.name for each in told(one, [[0], [1]], Phase.RESPONSE)] == ["b"]


def test_the_first_position_is_never_counted():
    (found,) = told(policy(rule()), [[9], [0.1]])
    assert (found.score, found.fired) == (pytest.approx(0.1), False)
    assert [each.position for each in found.tokens] == [1]


@pytest.mark.parametrize("readings", [np.zeros((0, 1)), [[9.0]]])
def test_texts_without_a_token_that_counts_reach_nothing(readings):
    (found,) = told(policy(rule(threshold=0.7)), readings)
    assert (found.score, found.threshold, found.fired, found.tokens) == (-np.inf, 0.7, False, ())


def test_the_best_five_tokens_are_shown_strongest_first_and_only_above_zero():
    scores = [0.0, 0.3, -1.0, 0.9, 0.3, 0.0, 0.5, 0.4, 0.8, 0.2]
    (found,) = told(policy(rule(threshold=2.0)), [[score] for score in scores])
    assert [each.position for each in found.tokens] == [3, 8, 6, 7, 1]
    assert [each.score for each in found.tokens] == pytest.approx([0.9, 0.8, 0.5, 0.4, 0.3])
    (few,) = told(policy(rule(threshold=2.0)), [[0], [-0.5], [0.25], [0]])
    assert [(each.position, each.score) for each in few.tokens] == [(2, 0.25)]


def test_of_each_token_the_three_features_that_give_most_are_named():
    features = ((3, 2.0), (5, 1.0), (7, -1.0), (8, 1.0), (9, 0.5))
    (found,) = told(policy(rule(features=features)), [[0] * 5, [0.5, 0.75, 4.0, 0.25, 1.0]])
    (token,) = told(policy(rule(features=features)), [[0] * 5, [0.5, 0.75, 0.0, 0.25, 1.0]])[0].tokens
    assert found.tokens == ()
    assert [(each.feature, each.reading) for each in token.features] == [(3, 0.5), (5, 0.75), (9, 1.0)]
    assert token.score == 2.5


def test_signals_score_and_are_no_features():
    (found,) = told(policy(rule(features=(), signal=next(iter(Signal)))), [[0], [0.75]])
    (token,) = found.tokens
    assert (token.score, token.features) == (0.75, ())


def test_a_pooled_rule_tells_its_pooled_score_and_tokens_by_their_own():
    (found,) = told(policy(rule(pooling=Mean(min_tokens=4), threshold=0.5)), [[0], [1.0], [0.0], [0.5]])
    assert (found.score, found.fired) == (0.375, False)
    assert [(each.position, each.score) for each in found.tokens] == [(1, 1.0), (3, 0.5)]


def test_parts_say_which_conditions_were_reached():
    conditions = (condition("a", 0), condition("b", 1), condition("c", 2))
    one = policy(
        rule("all", features=(), when=AllOf(all=["a", "b"])),
        rule("any", features=(), when=AnyOf(any=["b", "c"])),
        conditions=conditions,
    )
    found = {each.rule.name: each for each in told(one, [[0, 0, 0], [0.75, 0, 0], [0, 0.25, 1.0]])}
    first, second = found["all"], found["any"]
    assert [(part.name, part.score, part.reached) for part in first.parts] == [
        ("a", 0.75, True),
        ("b", 0.25, False),
    ]
    assert (first.score, first.threshold, first.fired) == (-0.25, 0.0, False)
    assert [part.name for part in second.parts] == ["b", "c"]
    assert (second.score, second.fired, second.tokens) == (0.5, True, ())
    assert [each.position for each in second.parts[1].tokens] == [2]


def test_conditions_reached_one_after_the_other_need_not_fire():
    conditions = (condition("a", 0, lasts=1), condition("b", 1, lasts=1))
    one = policy(rule(features=(), when=AllOf(all=["a", "b"])), conditions=conditions)
    (found,) = told(one, [[0, 0], [1, 0], [0, 1]])
    assert ([part.reached for part in found.parts], found.fired) == ([True, True], False)
