"""Combinations of conditions: how they are written, what is in them, and when they hold."""

import itertools

import pytest
from pydantic import TypeAdapter

from monitor.policy.schema.expression import AtLeast, Expression, holds, names_in, needed, parts_of
from tests.policy.schema.refusals import texts

READ = TypeAdapter(Expression)
DEEP = {"all": ["a", {"any": ["b", {"not": {"at_least": 2, "of": ["a", "c", "b"]}}]}]}


def test_names_with_their_places_in_the_file():
    assert list(names_in(READ.validate_python(DEEP), ("when",))) == [
        ("a", ("when", "all", 0)),
        ("b", ("when", "all", 1, "any", 0)),
        ("a", ("when", "all", 1, "any", 1, "not", "of", 0)),
        ("c", ("when", "all", 1, "any", 1, "not", "of", 1)),
        ("b", ("when", "all", 1, "any", 1, "not", "of", 2)),
    ]
    assert list(names_in("a")) == [("a", ())]


@pytest.mark.parametrize("values", list(itertools.product([False, True], repeat=3)))
def test_it_holds_as_the_words_say(values):
    a, b, c = values
    reached = dict(zip("abc", values, strict=True)).__getitem__
    assert holds(READ.validate_python(DEEP), reached) is (a and (b or not (a + c + b >= 2)))
    assert holds(READ.validate_python({"not": {"any": ["a", "b"]}}), reached) is (not (a or b))
    assert holds(READ.validate_python({"at_least": 2, "of": ["a", "b", "c"]}), reached) is (a + b + c >= 2)
    assert holds("b", reached) is b


@pytest.mark.parametrize(
    ("written", "parts", "least"),
    [
        ({"all": ["a", "b", "c"]}, ["a", "b", "c"], 3),
        ({"any": ["a", "b"]}, ["a", "b"], 1),
        ({"at_least": 2, "of": ["a", "b", "c"]}, ["a", "b", "c"], 2),
        ({"not": "a"}, ["a"], 1),
        ("a", [], 0),
    ],
)
def test_parts_and_how_many_of_them_must_hold(written, parts, least):
    made = READ.validate_python(written)
    assert parts_of(made) == parts
    assert needed(made) == least


def test_more_than_there_are_can_never_hold():
    assert texts(AtLeast, {"at_least": 3, "of": ["a", "b"]}) == [
        (["at_least"], "3 of 2 parts can never hold")
    ]


@pytest.mark.parametrize(
    "written",
    [{"all": []}, {"all": ["a"] * 65}, {"none": ["a"]}, {"all": ["a"], "any": ["b"]}, 3, "A b", ["a"]],
)
def test_what_is_no_combination(written):
    with pytest.raises(ValueError):
        READ.validate_python(written)
