"""Thresholds as they are written, and the one that holds at a token."""

import pytest
from pydantic import TypeAdapter, ValidationError

from monitor.policy.schema.threshold import (
    AskedRate,
    FixedThreshold,
    LengthThreshold,
    ThresholdField,
    threshold_at,
    thresholds_by_length,
)

WRITTEN = [
    {"up_to": 16, "threshold": 0.5},
    {"up_to": 64, "threshold": 0.75},
    {"up_to": None, "threshold": 1.0},
]


def test_a_number_a_rate_or_one_for_each_length():
    read = TypeAdapter(ThresholdField).validate_python
    assert read(0.5) == 0.5
    assert read(2) == 2.0
    assert read({"false_positive_rate": 0.01}) == AskedRate(false_positive_rate=0.01)
    assert read(WRITTEN)[1] == LengthThreshold(up_to=64, threshold=0.75)
    assert TypeAdapter(FixedThreshold).validate_python(WRITTEN) == read(WRITTEN)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"false_positive_rate": 0}, "greater than 0"),
        ({"false_positive_rate": 0.6}, "less than or equal to 0.5"),
        ([], "at least 1 item"),
        (WRITTEN[:2], "the last length has no limit: write `up_to: null` there"),
        ([WRITTEN[2], WRITTEN[2]], "`up_to: null` belongs to the last length; put it at the end"),
        ([WRITTEN[1], WRITTEN[0], WRITTEN[2]], "lengths must grow; 16 does not come after 64"),
        ([WRITTEN[0], WRITTEN[0], WRITTEN[2]], "lengths must grow; 16 does not come after 16"),
        ([{"up_to": 0, "threshold": 1.0}, WRITTEN[2]], "greater than or equal to 1"),
        ("high", "valid number"),
    ],
)
def test_what_is_no_threshold(value, message):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(ThresholdField).validate_python(value)


def test_a_lock_asks_for_no_rate():
    with pytest.raises(ValidationError):
        TypeAdapter(FixedThreshold).validate_python({"false_positive_rate": 0.01})


@pytest.mark.parametrize(
    ("token", "threshold"), [(1, 0.5), (16, 0.5), (17, 0.75), (64, 0.75), (65, 1.0), (10**9, 1.0)]
)
def test_the_threshold_at_a_token(token, threshold):
    by_length = TypeAdapter(ThresholdField).validate_python(WRITTEN)
    assert threshold_at(by_length, token) == threshold
    assert threshold_at(0.25, token) == 0.25
    assert thresholds_by_length(by_length) == ((16, 0.5), (64, 0.75), (None, 1.0))
    assert thresholds_by_length(2) == ((None, 2.0),)
