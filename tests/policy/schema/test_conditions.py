"""Named conditions and the rules that combine them: names, circles, what is unused, what holds from the start."""

import pytest

from monitor.policy.schema.base import refusals
from monitor.policy.schema.check import CheckModel, ConditionModel
from monitor.policy.schema.conditions import condition_checks

A = {"threshold": 0.5}


def found(conditions, *whens):
    made = {name: ConditionModel.model_validate(part) for name, part in conditions.items()}
    rules = [CheckModel.model_validate(A if when is None else {"when": when}) for when in whens]
    return [(one["at"], one["text"]) for one in refusals(condition_checks(made, rules))]


@pytest.mark.parametrize(
    "when",
    [
        "a",
        {"all": ["a", "b"]},
        {"any": ["a", {"not": "b"}, "b"]},
        {"at_least": 2, "of": ["a", "b", {"not": "a"}]},
    ],
)
def test_what_fits_is_not_refused(when):
    others = {"any": ["a", "b"]}
    assert not [text for _, text in found({"a": A, "b": A}, when, others) if "holds before" not in text]


def test_no_conditions_at_all():
    assert found({}, None) == []
    assert refusals(condition_checks(None, [CheckModel.model_validate(A)])) == []


def test_names_that_stand_for_nothing_are_told_where_they_stand():
    told = found({"a": A, "b": {"when": {"not": "c"}}}, {"all": ["a", {"any": ["b", "d"]}]})
    assert told == [
        (["rules", 0, "when", "all", 1, "any", 1], "there is no condition `d`; conditions: a, b"),
        (["conditions", "b", "when", "not"], "there is no condition `c`; conditions: a, b"),
    ]
    assert found({}, "a")[0][1] == "there is no condition `a`; conditions: none"


def test_what_no_rule_uses():
    assert found({"a": A, "b": {"when": "a"}, "c": A}, "b") == [
        (["conditions", "c"], "no rule uses the condition `c`; remove it")
    ]


def test_circles():
    conditions = {"a": {"when": "b"}, "b": {"when": {"any": ["c", "d"]}}, "c": {"when": {"not": "a"}}, "d": A}
    assert found(conditions, "a") == [
        (["conditions", "a", "when"], "the conditions go round in a circle: a → b → c → a")
    ]


@pytest.mark.parametrize(
    ("when", "idle"),
    [
        ({"not": "a"}, True),
        ({"any": ["a", {"not": "b"}]}, True),
        ({"at_least": 1, "of": ["a", "never"]}, True),
        ({"all": ["a", {"not": "b"}]}, False),
        ({"not": {"not": "a"}}, False),
        ({"all": ["never", {"not": "b"}]}, True),
    ],
)
def test_rules_that_hold_before_anything_is_reached(when, idle):
    told = found(
        {"a": A, "b": A, "never": {"when": {"not": "b"}}}, when, {"all": ["a", "b"]}, {"all": ["never", "a"]}
    )
    assert [at for at, text in told if "holds before any condition is reached" in text] == (
        [["rules", 0, "when"]] if idle else []
    )
