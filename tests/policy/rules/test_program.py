import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.rules.program import (
    Thresholds,
    compile_program,
    in_order,
    merge_clamps,
    strongest,
    watch_plan,
)
from monitor.policy.schema.expression import AllOf, AnyOf
from monitor.records import Action, Clamp, Mode, Phase, Probe, Signal, Where
from tests.policy.conftest import policy, rule


def condition(name, feature, **more):
    return Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=0.5, **more)


def both(*names):
    return AllOf(all=list(names))


def test_thresholds_that_do_not_vary_are_the_same_at_any_length():
    fixed = Thresholds([rule(threshold=0.5), rule(threshold=2.0)])
    assert not fixed.vary
    assert fixed.at(np.asarray([[1], [900]])).tolist() == [0.5, 2.0]


def test_thresholds_that_vary_are_those_of_the_first_limit_not_passed():
    lengths = (((2, 0.9), (20, 0.4), (None, 0.7)), ((5, 0.5), (None, 0.2)), ())
    checks = [rule(lengths=own, threshold=own[-1][1] if own else 3.0) for own in lengths]
    tokens = np.arange(1, 30)
    found = Thresholds(checks)
    wanted = [
        [
            next((v for up_to, v in check.lengths if up_to is None or n <= up_to), check.threshold)
            for check in checks
        ]
        for n in tokens
    ]
    assert found.vary
    np.testing.assert_array_equal(found.at(tokens[:, None]), wanted)
    every = np.stack([tokens, tokens[::-1], tokens], axis=1)
    np.testing.assert_array_equal(found.at(every)[:, 1], [row[1] for row in wanted[::-1]])
    np.testing.assert_array_equal(found.at(every)[:, 0], [row[0] for row in wanted])
    assert found.fixed.tolist() == [0.7, 0.2, 3.0]


def test_the_watch_plan_names_each_column_once():
    probe, signal = Probe("p/r", (1.0, 0.5, 0.0, 2.0)), next(iter(Signal))
    policies = (
        policy(rule("a", features=((9, 1.0), (3, 1.0))), rule("b", features=(), probe=probe), name="p"),
        policy(
            rule("c", features=((3, -1.0),)),
            rule("d", features=(), signal=signal),
            rule("e", features=(), when="x"),
            conditions=(condition("x", 4), Condition("y", probe=probe), Condition("z", signal=signal)),
            clamps=(Clamp(1, -1.0), Clamp(9, -1.0)),
            name="q",
        ),
    )
    plan = watch_plan(policies)
    assert plan.features == (1, 3, 4, 9)
    assert [one.name for one in plan.probes] == ["p/r"]
    assert plan.signals == (signal,)
    assert watch_plan(()).features == ()


def test_a_program_numbers_rules_and_then_the_conditions_without_a_combination():
    first = policy(rule("a"), rule("b", features=(), when=both("x", "y")), conditions=PARTS, name="p")
    second = policy(rule("c", phases=(Phase.RESPONSE,)), name="q", closed=False)
    program = compile_program((first, second))
    assert [one.name for one in program.rules] == ["a", "b", "c"]
    assert [one.name for one in program.owners] == ["p", "p", "q"]
    assert [one.name for one in program.checks] == ["a", "c", "x", "y"]
    assert [one.name for one in program.makers] == ["p", "q", "p", "p"]
    assert (program.simple.tolist(), program.combined.tolist()) == ([0, 2], [1])
    assert (program.leaves.tolist(), program.parts) == ([2, 3], ((0, 1),))
    assert program.watches(Phase.PROMPT).tolist() == [True, True, False]
    assert program.reads(Phase.PROMPT).tolist() == [True, False, True, False]
    assert program.reads(Phase.RESPONSE).tolist() == [True, True, True, True]
    assert program.lasting.tolist() == [np.inf, 3.0]


PARTS = (condition("x", 1), condition("y", 2, lasts=3, phases=(Phase.RESPONSE,)))


def test_parts_of_a_combination_are_all_conditions_below_it():
    conditions = (*PARTS, Condition("deep", when=both("x", "z")), condition("z", 7))
    rules = (
        rule("a", features=(), when=AnyOf(any=["deep", "z"])),
        rule("b", features=(), when="y", hold=4),
    )
    program = compile_program((policy(*rules, conditions=conditions),))
    assert [program.checks[i].name for i in program.leaves] == ["x", "y", "z"]
    assert program.parts == ((0, 2), (1,))
    assert program.held.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("action", "mode", "always", "holds"),
    [
        (Action.SUPPRESS, Mode.ENFORCE, False, [[0]]),
        (Action.SUPPRESS, Mode.SHADOW, False, []),
        (Action.ALERT, Mode.ENFORCE, False, []),
        (Action.SUPPRESS, Mode.ENFORCE, True, []),
    ],
)
def test_clamps_are_begun_by_enforced_rules_that_suppress(action, mode, always, holds):
    one = policy(
        rule("a", action=action, mode=mode), rule("b"), clamps=(Clamp(3, -1.0),), clamps_always=always
    )
    program = compile_program((one,))
    assert [holder.rules.tolist() for holder in program.holders] == holds


@pytest.mark.parametrize(("closed", "mode", "wanted"), [(1, 1, True), (1, 0, False), (0, 1, False)])
def test_a_program_is_closed_where_a_policy_that_acts_is(closed, mode, wanted):
    one = policy(rule(mode=Mode.ENFORCE if mode else Mode.SHADOW), closed=bool(closed))
    assert compile_program((one,)).closed is wanted


def test_conditions_come_after_those_that_they_name():
    conditions = [
        Condition("top", when=both("middle", "leaf")),
        Condition("middle", when=both("leaf", "other")),
        condition("other", 1),
        condition("leaf", 2),
    ]
    assert [one.name for one in in_order(conditions)] == ["leaf", "other", "middle", "top"]
    assert in_order([]) == []


def test_of_several_clamps_of_a_feature_the_strongest_stays():
    found = merge_clamps(
        [Clamp(9, -1.0), Clamp(2, 0.5), Clamp(9, -3.0, Where.EVERYWHERE), Clamp(9, 0.0), Clamp(2, 0.0)]
    )
    assert found == (Clamp(2, 0.0), Clamp(9, -3.0, Where.EVERYWHERE))
    assert merge_clamps([]) == ()


def test_the_strongest_action_is_that_of_an_enforced_rule():
    alert, block = rule(action=Action.ALERT), rule(action=Action.BLOCK)
    quiet = rule(action=Action.BLOCK, mode=Mode.SHADOW)
    assert strongest([alert, block, alert]) is Action.BLOCK
    assert strongest([alert, quiet]) is Action.ALERT
    assert strongest([quiet]) is strongest([]) is Action.ALLOW
