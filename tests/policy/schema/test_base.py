"""Strict parts: what no field takes, and checks whose mistakes are all told."""

from functools import partial
from typing import Annotated

import pytest
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from monitor.policy.schema.base import (
    DIGEST,
    FILE,
    FeatureIndex,
    Name,
    Strict,
    Weight,
    places,
    refusals,
    refuse,
)
from monitor.policy.schema.partial import WRONG, Unknown


class Pair(Strict):
    """A part whose second number must not be below its first."""

    low: float
    high: Annotated[float, Field(alias="most")] = 1.0

    def checks(self):
        return (partial(self._above, "low"), partial(self._above, "most"))

    def _above(self, name):
        if self.high < self.low:
            raise refuse([name], f"{name} does not fit")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"low": "0"}, "float_type"),
        ({"low": True}, "float_type"),
        ({"low": float("nan")}, "finite_number"),
        ({"low": float("inf")}, "finite_number"),
        ({"low": 0.0, "more": 1}, "extra_forbidden"),
        ({"low": 0.0, "high": 1.0}, "extra_forbidden"),
        ({}, "missing"),
    ],
)
def test_nothing_is_coerced_or_passed_over(data, kind):
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate(data)
    assert kind in {error["type"] for error in caught.value.errors()}


def test_all_mistakes_between_fields_are_in_one_error():
    assert Pair.model_validate({"low": 0.5}).high == 1.0
    with pytest.raises(ValidationError) as caught:
        Pair.model_validate({"low": 2.0, "most": 1.0})
    (error,) = caught.value.errors()
    assert error["msg"] == "low does not fit"
    assert error["ctx"]["at"] == ["low"]
    assert [more["text"] for more in error["ctx"]["more"]] == ["most does not fit"]


def test_a_part_cannot_be_changed():
    with pytest.raises(ValidationError):
        Pair.model_validate({"low": 0.0}).low = 0.5


def test_a_check_that_needs_what_is_not_known_refuses_nothing():
    def unknown():
        raise Unknown

    def wrong():
        raise refuse(["a", 0], "no", unsure=["b"])

    assert refusals((unknown, lambda: None)) == []
    assert refusals((wrong, unknown, wrong)) == [{"at": ["a", 0], "text": "no", "unsure": ["b"]}] * 2
    assert isinstance(refuse([], "no"), PydanticCustomError)


def test_places_of_a_list_that_may_be_missing_or_unknown():
    assert list(places([7, 8])) == [0, 1]
    assert list(places(None)) == list(places([])) == list(places(WRONG)) == []


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        (Name, ["a", "a-b2", "7"], ["A", "a_b", "-a", "a-", "a--b", "", "a" * 65]),
        (FeatureIndex, [0, 2**31 - 1], [-1, 2**31]),
        (Weight, [-1e9, 0.0, 1e9], [-1.1e9, 1.1e9]),
        (Annotated[str, Field(pattern=DIGEST)], ["sha256:" + "0a" * 32], ["sha256:" + "0A" * 32, "0a" * 32]),
        (
            Annotated[str, Field(pattern=FILE)],
            ["a.b-c_d.jsonl"],
            ["../a.jsonl", ".a.jsonl", "a/b.jsonl", "a.json"],
        ),
    ],
)
def test_names_numbers_and_digests(kind, right, wrong):
    adapter = TypeAdapter(kind)
    for value in right:
        assert adapter.validate_python(value, strict=True) == value
    for value in wrong:
        with pytest.raises(ValidationError):
            adapter.validate_python(value, strict=True)
