"""Combinations as layers of gates, against the meaning of each expression."""

import itertools

import numpy as np
import pytest

from monitor.policy.rules.gates import Gates
from monitor.policy.schema.expression import AllOf, AnyOf, AtLeast, NotOf, holds

NAMES = "abcd"


def negated(part):
    return NotOf.model_validate({"not": part})


EXPRESSIONS = [
    "c",
    negated("c"),
    negated(negated("c")),
    AllOf(all=["a", "b", "d"]),
    AnyOf(any=["a", "b"]),
    AtLeast(at_least=2, of=["a", "b", "c", "d"]),
    AtLeast(at_least=2, of=["a", negated("b"), AnyOf(any=["c", "d"])]),
    negated(AllOf(all=["a", AnyOf(any=["b", negated("c")])])),
    AnyOf(any=[AllOf(all=["a", negated("b")]), AtLeast(at_least=2, of=["b", "c", "d"])]),
    AllOf(all=[AllOf(all=[AllOf(all=["a", "b"]), "c"]), negated(negated(AnyOf(any=["a", "d"])))]),
]
LEAVES = np.asarray(list(itertools.product([False, True], repeat=len(NAMES))))


def gates_of(*expressions):
    gates = Gates(len(NAMES))
    names = {name: (i, False) for i, name in enumerate(NAMES)}
    for expression in expressions:
        gates.output(gates.add(expression, names))
    return gates.close()


def plain_margin(expression, margins):
    """How far an expression is beyond its threshold, by the definition of each word."""
    if isinstance(expression, str):
        return margins[expression]
    if isinstance(expression, NotOf):
        return -plain_margin(expression.not_, margins)
    if isinstance(expression, AllOf):
        return min(plain_margin(part, margins) for part in expression.all)
    if isinstance(expression, AnyOf):
        return max(plain_margin(part, margins) for part in expression.any)
    parts = sorted((plain_margin(part, margins) for part in expression.of), reverse=True)
    return parts[expression.at_least - 1]


def test_all_expressions_hold_together_where_each_holds_alone():
    found = gates_of(*EXPRESSIONS).evaluate(LEAVES)
    assert found.shape == (len(LEAVES), len(EXPRESSIONS))
    for row, truths in zip(found, LEAVES, strict=True):
        known = dict(zip(NAMES, truths, strict=True))
        assert row.tolist() == [holds(expression, known.__getitem__) for expression in EXPRESSIONS]


def test_the_order_in_which_rules_are_added_decides_only_the_order_of_the_answer():
    forward, backward = gates_of(*EXPRESSIONS), gates_of(*reversed(EXPRESSIONS))
    np.testing.assert_array_equal(forward.evaluate(LEAVES), backward.evaluate(LEAVES)[:, ::-1])


def test_a_condition_that_is_a_combination_is_used_by_its_node():
    gates = Gates(2)
    names = {"a": (0, False), "b": (1, False)}
    names["both"] = gates.add(AllOf(all=["a", "b"]), names)
    names["neither"] = gates.add(negated(AnyOf(any=["a", "b"])), names)
    gates.output(gates.add(AnyOf(any=["both", "neither"]), names))
    gates.output(names["neither"])
    leaves = np.asarray([[False, False], [True, False], [True, True]])
    assert gates.close().evaluate(leaves).tolist() == [[True, True], [False, False], [True, False]]


@pytest.mark.parametrize("seed", range(5))
def test_margins_are_the_least_the_greatest_or_the_nth(seed):
    margins = np.random.default_rng(seed).normal(size=len(NAMES)).tolist()
    known = dict(zip(NAMES, margins, strict=True))
    found = gates_of(*EXPRESSIONS).margins(margins)
    assert found == [plain_margin(expression, known) for expression in EXPRESSIONS]
    held = gates_of(*EXPRESSIONS).evaluate(np.asarray(margins)[None] > 0)[0]
    assert held.tolist() == [margin > 0 for margin in found]


def test_no_rules_and_no_tokens():
    assert gates_of().evaluate(LEAVES).shape == (len(LEAVES), 0)
    assert gates_of().margins([0.0] * len(NAMES)) == []
    assert gates_of(*EXPRESSIONS).evaluate(LEAVES[:0]).shape == (0, len(EXPRESSIONS))


def test_names_that_nobody_defined_are_not_guessed():
    with pytest.raises(KeyError, match="z"):
        gates_of(AllOf(all=["a", "z"]))
