"""A file with mistakes is read as far as it goes: wrong fields are unknown, and no check speaks of them."""

from functools import partial

import pytest
from pydantic import ValidationError

from monitor.policy.schema.base import Strict, places, refuse
from monitor.policy.schema.partial import WRONG, Partial, Unknown


class Inner(Strict):
    """A number that must not be above ten."""

    number: int = 0
    limit: int = 10

    def checks(self):
        return (self._low,)

    def _low(self):
        if self.number > self.limit:
            raise refuse(["number"], f"{self.number} is above {self.limit}")


class Outer(Strict):
    """Parts, and a name that is not theirs."""

    name: str
    inners: list[Inner]

    def checks(self):
        return (self._name, *(partial(self._one, i) for i in places(self.inners)))

    def _name(self):
        if self.name == "no":
            raise refuse(["name"], "another name")

    def _one(self, i):
        if self.inners[i].number == 7:
            raise refuse(["inners", i, "number"], "seven")


def read(data):
    """What pydantic refuses and what checks refuse, each by path."""
    reading = Partial(data)
    try:
        Outer.model_validate(data, context=reading)
        own = []
    except ValidationError as error:
        own = [one["loc"] for one in error.errors()]
    return own, reading.found


def test_everything_right():
    assert read({"name": "a", "inners": [{"number": 3}]}) == ([], [])


def test_checks_run_on_what_is_right_beside_a_wrong_field():
    _, found = read({"name": 3, "inners": [{"number": 20}, {"number": 7}, {"number": "x"}]})
    assert sorted(found) == [(("inners", 0, "number"), "20 is above 10"), (("inners", 1, "number"), "seven")]


def test_no_check_speaks_of_a_wrong_field():
    assert read({"name": "a", "inners": [{"number": 20, "limit": "x"}]})[1] == []
    assert read({"name": "no", "inners": 5})[1] == [(("name",), "another name")]


def test_a_misspelt_word_makes_unknown_what_it_was_meant_to_be():
    assert read({"name": "a", "inners": [{"number": 20, "limmit": 30}]})[1] == []
    # No field is like this word, so what it was meant to be is anybody's guess: only what stands there is told.
    assert read({"name": "a", "inners": [{"number": 20, "zzz": 30}]})[1] == [
        (("inners", 0, "number"), "20 is above 10")
    ]


@pytest.mark.parametrize(
    "use", [bool, len, iter, hash, lambda x: x == 1, lambda x: x < 1, lambda x: x.name, lambda x: x()]
)
def test_every_use_of_what_is_wrong_is_unknown(use):
    with pytest.raises(Unknown):
        use(WRONG)
    assert WRONG is not None
    assert issubclass(Unknown, ValueError), "pydantic turns it into an error of the field"
