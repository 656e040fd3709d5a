"""Frozen dataclasses as JSON and back: exact, complete, and refused where they are of another kind."""

import dataclasses
import enum
import json
import math

import numpy as np
import pytest

from monitor.telemetry.decisions import codec


def test_numbers_come_back_as_they_were():
    for value in np.random.default_rng(3).standard_normal(2000).astype(np.float32) * 1e3:
        assert np.float32(codec.dump(float(value))) == value
    assert codec.dump(math.nan) is codec.dump(-math.inf) is None
    assert math.isnan(codec.load(float, None))


def test_nothing_is_logged_by_accident_of_its_repr():
    with pytest.raises(TypeError, match="ndarray cannot be part of a decision record"):
        codec.dump({"x": 1} and np.zeros(3))


class Colour(enum.Enum):
    LIGHT_BLUE = 3


@dataclasses.dataclass(frozen=True)
class Point:
    x: float
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Drawing:
    points: tuple[Point, ...]
    colour: Colour = Colour.LIGHT_BLUE
    near: Point | None = None
    marks: tuple[int, ...] = ()
    shown: dict[str, int] = dataclasses.field(default_factory=dict, init=False)


@pytest.mark.parametrize(
    "value",
    [
        Drawing((Point(0.1), Point(2.0, "é\n"))),
        Drawing((), near=Point(1.0)),
        Drawing((Point(-3.5),), marks=(1, 2)),
    ],
)
def test_records_come_back_as_they_were(value):
    assert codec.load(Drawing, json.loads(json.dumps(codec.dump(value)))) == value


def test_what_has_its_default_value_is_left_out():
    assert codec.dump(Drawing((Point(0.5),))) == {"points": [{"x": 0.5}]}
    assert codec.dump(Drawing((Point(0.5, "a"),), marks=(3,))) == {
        "points": [{"x": 0.5, "name": "a"}],
        "marks": [3],
    }
    assert codec.dump(Colour.LIGHT_BLUE) == "light_blue"


def test_nine_digits_and_no_more():
    assert codec.dump(0.1234567891234) == 0.123456789
    assert codec.dump(math.nan) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"points": {}}, "expected a list, found dict"),
        ({"points": [3]}, "expected a Point, found int"),
        ({"points": [{"name": "a"}]}, "a Point lacks one of x"),
        ({"points": [], "colour": "LIGHT_BLUE"}, "there is no Colour 'LIGHT_BLUE'"),
        ({"points": [{"x": 1.0, "name": 3}]}, "expected str, found int"),
    ],
)
def test_content_of_another_kind_is_refused(content, said):
    with pytest.raises(ValueError, match=said):
        codec.load(Drawing, content)


def test_what_is_not_known_is_passed_over():
    assert codec.load(Point, {"x": None, "later": [1]}).name == ""
    assert math.isnan(codec.load(Point, {"x": None}).x)


@pytest.mark.parametrize("value", [{"a": 1}, {1}, b"x", object(), Point])
def test_nothing_else_is_written(value):
    with pytest.raises(TypeError, match="cannot be part of a decision record"):
        codec.dump((value,))
