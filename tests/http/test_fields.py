"""JSON bodies: what is read, and what is said of what is wrong."""

import pytest

from monitor.errors import BadRequest
from monitor.http.fields import Fields, encodable, kind_of, parse, printable
from monitor.rpc.wire.problems import Problems


def read(content, reading):
    """What a reading finds, and the fields it complains of."""
    problems = Problems()
    fields = Fields(content, problems)
    found = reading(fields)
    fields.finish()
    try:
        problems.raise_any()
    except BadRequest as error:
        return found, {v.field: v.description for v in error.violations}
    return found, {}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"a": Infinity}', "not JSON"),
        (b"[" * 10**5, "deeply"),
    ],
)
def test_a_body_is_a_json_object(body, text):
    with pytest.raises(BadRequest, match=text):
        parse(body)


def test_a_json_object_is_read():
    assert parse('{"a": "ä"}'.encode()) == {"a": "ä"}


READINGS = {
    "text": (lambda f: f.text("a", "no"), "yes", "yes", 5),
    "boolean": (lambda f: f.boolean("a"), True, True, "true"),
    "integer": (lambda f: f.integer("a", 1), 7, 7, "7"),
    "whole float": (lambda f: f.integer("a", 1), 7.0, 7, 7.5),
    "no boolean as integer": (lambda f: f.integer("a", 1), 0, 0, True),
    "number": (lambda f: f.number("a", 1.0), 0.5, 0.5, "0.5"),
    "no boolean as number": (lambda f: f.number("a", 1.0), 3, 3.0, False),
    "one text": (lambda f: f.texts("a"), "x", ("x",), 1),
    "texts": (lambda f: f.texts("a"), ["x", "y"], ("x", "y"), ["x", 1]),
    "object": (lambda f: f.object("a").integer("b", 0), {"b": 2}, 2, [1]),
    "objects": (lambda f: [o.integer("b", 0) for o in f.objects("a")], [{"b": 2}], [2], {"b": 2}),
}


@pytest.mark.parametrize(("reading", "good", "found", "bad"), READINGS.values(), ids=READINGS)
def test_each_kind_is_read_and_nothing_else(reading, good, found, bad):
    assert read({"a": good}, reading) == (found, {})
    _, wrong = read({"a": bad}, reading)
    assert list(wrong) == ["a"]
    assert "write" in wrong["a"]
    absent, wrong = read({"a": None}, reading)
    assert not wrong
    assert absent == read({}, reading)[0]


def test_a_number_beyond_floats_is_infinite_and_thus_out_of_every_range():
    assert read({"a": 10**400}, lambda f: f.number("a", 0.0)) == (float("inf"), {})


def test_paths_name_the_place():
    def reading(fields):
        for outer in fields.objects("a"):
            outer.object("b").integer("c", 0)
            outer.finish()

    _, wrong = read({"a": [{"b": {"c": "x"}}, {"d": 1}, 3]}, reading)
    assert set(wrong) == {"a[0].b.c", "a[1].d", "a[2]"}


def test_an_unknown_field_is_named_with_the_nearest():
    _, wrong = read({"temprature": 1, "zzz": 1}, lambda f: f.number("temperature", 0))
    assert wrong == {
        "temprature": "there is no such field; did you mean `temperature`?",
        "zzz": "there is no such field; leave it out",
    }


def test_a_refused_field_may_have_the_values_that_ask_for_nothing():
    for value, wrong in ((None, False), (0, False), (1, True)):
        assert bool(read({"a": value}, lambda f: f.refused("a", "no", 0))[1]) is wrong


def test_texts_that_utf_8_cannot_hold_and_names_that_cannot_be_printed():
    assert encodable("ä😀")
    assert not encodable("a\udc00")
    assert printable("a\x1b[31m" + "b" * 100) == "a?[31m" + "b" * 58
    assert [kind_of(v) for v in (None, True, 1, 1.5, "", [], {})] == [
        "null",
        "a boolean",
        "a number",
        "a number",
        "a text",
        "a list",
        "an object",
    ]
