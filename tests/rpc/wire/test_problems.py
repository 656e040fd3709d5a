import pytest

from monitor.errors import BadRequest, TooLong, Violation
from monitor.rpc.wire.problems import Problems, under


def found(problems):
    with pytest.raises(BadRequest) as caught:
        problems.raise_any()
    return [(violation.field, violation.description) for violation in caught.value.violations]


def test_nothing_is_raised_where_nothing_is_wrong():
    problems = Problems()
    problems.number("temperature", 0.7, 0.0, 2.0)
    problems.raise_any()


def test_all_wrong_fields_are_named_in_the_order_of_reading():
    problems = Problems()
    problems.add("stop[1]", "is empty; write a text")
    problems.number("top_p", 2.0, 0.0, 1.0)
    problems.add("seed", "is text; write a number")
    assert [field for field, _ in found(problems)] == ["stop[1]", "top_p", "seed"]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_limits_are_within(value):
    problems = Problems()
    problems.number("top_p", value, 0.0, 1.0)
    problems.raise_any()


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (-0.25, 0, 1, "is -0.25; write a number from 0 to 1"),
        (3.0, 0.5, 2, "is 3; write a number from 0.5 to 2"),
        (1e9, 0, 65_536, "is 1000000000; write a number from 0 to 65536"),
        (float("nan"), 0, 2.5, "is nan; write a number from 0 to 2.5"),
        (float("inf"), 0, 1, "is inf; write a number from 0 to 1"),
        (float("-inf"), 0, 1, "is -inf; write a number from 0 to 1"),
    ],
)
def test_numbers_outside_are_told_with_what_to_write(value, low, high, text):
    problems = Problems()
    problems.number("n", value, low, high)
    assert found(problems) == [("n", text)]


def test_fields_of_a_part_are_named_by_their_whole_path():
    violations = (Violation("text", "is empty"), Violation("messages[2].role", "is missing"))
    with pytest.raises(BadRequest) as caught, under("generation"), under("input"):
        raise BadRequest(*violations)
    assert type(caught.value) is BadRequest
    assert [v.field for v in caught.value.violations] == [
        "generation.input.text",
        "generation.input.messages[2].role",
    ]
    assert [v.description for v in caught.value.violations] == ["is empty", "is missing"]


def test_a_text_that_is_too_long_stays_one():
    with pytest.raises(TooLong, match=r"generation\.text: is 9 tokens long"), under("generation"):
        raise TooLong(Violation("text", "is 9 tokens long"))


def test_other_errors_pass_as_they_are():
    with pytest.raises(KeyError, match="x"), under("generation"):
        raise KeyError("x")
