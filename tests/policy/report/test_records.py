"""The records of a page: what is left out, and that nothing in them changes."""

import dataclasses

import pytest

from monitor.policy.report.records import Group, Heat, PolicyReport, PolicySetReport, Scores, Token
from tests.policy.synthetic import policy


@pytest.mark.parametrize(
    "record",
    [
        Token("a", 1.0),
        Heat("s", (), 0.5),
        Group("t", "n", ()),
        Scores("n", ()),
        PolicyReport(policy(), None, {}, "beta"),
        PolicySetReport("t", {}, ()),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_do_not_change(record):
    first = dataclasses.fields(record)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(record, first, "another")


def test_what_was_not_measured_is_empty():
    one = PolicyReport(policy(), None, {}, "beta")
    assert (one.sources, one.rates, one.scores, one.groups) == ((), (), (), ())
    whole = PolicySetReport("t", {}, [one])
    assert (whole.together, whole.measured, whole.notes) == ((), False, ())
