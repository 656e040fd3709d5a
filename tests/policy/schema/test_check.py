"""Rules and conditions as they are written: one source of scores with a threshold, or a combination and no more."""

import pytest

from monitor.policy.schema.base import refusals
from monitor.policy.schema.check import BOTH, CheckModel, ConditionModel, Pin, once
from monitor.records import Phase, Signal
from tests.policy.schema.refusals import texts


def test_what_is_left_out():
    check = CheckModel.model_validate({"threshold": 0.5})
    assert (check.phases, check.pooling, check.for_, check.scope) == (BOTH, "max", 1, "request")
    assert not check.own_columns
    assert ConditionModel.model_validate({"threshold": 0.5}).lasts is None
    assert (Pin(index=3).weight, Pin(index=3).label) == (1.0, "")


@pytest.mark.parametrize("own", [{"features": [{"index": 3}]}, {"signal": "residual_norm"}])
def test_what_a_part_reads_itself(own):
    check = CheckModel.model_validate({"threshold": 0.5, "phases": ["response"], **own})
    assert check.own_columns
    assert check.phases == [Phase.RESPONSE]
    assert check.signal is (Signal.RESIDUAL_NORM if "signal" in own else None)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (
            {},
            [(["threshold"], "the field `threshold` is missing; write a number, or `when:` with conditions")],
        ),
        (
            {"threshold": 1.0, "phases": ["prompt", "prompt"]},
            [(["phases"], "a phase stands here twice; name each once")],
        ),
        (
            {"threshold": 1.0, "features": [{"index": 3}], "signal": "residual_norm"},
            [(["signal"], "write `features` or `signal`, not both")],
        ),
        (
            {"threshold": 1.0, "for": 2, "pooling": {"kind": "longest_run", "level": 0.5}},
            [(["for"], "`longest_run` already counts tokens; leave `for` out")],
        ),
        (
            {"threshold": 1.0, "features": [{"index": 3}, {"index": 4}, {"index": 3}]},
            [(["features", 2], "feature 3 stands here twice; name it once")],
        ),
    ],
)
def test_mistakes_between_fields(data, found):
    assert texts(CheckModel, data) == found


def test_a_combination_has_nothing_of_a_score():
    beside = {"features": [{"index": 3}], "signal": "residual_norm", "pooling": "mean", "threshold": 1.0}
    found = texts(CheckModel, {"when": "a", "scope": "session", **beside})
    assert sorted(at[0] for at, _ in found) == ["features", "pooling", "scope", "signal", "threshold"]
    assert CheckModel.model_validate({"when": "a", "for": 3, "phases": ["prompt"]}).for_ == 3
    found = texts(ConditionModel, {"when": "a", "for": 3, "phases": ["prompt"], "lasts": 5})
    assert [at for at, _ in found] == [["phases"], ["for"], ["lasts"]]


def test_features_that_stand_twice_may_be_plain_numbers():
    assert [one["at"] for one in refusals(once([3, 4, 3, 3], ["suppress", "features"]))] == [
        ["suppress", "features", 2],
        ["suppress", "features", 3],
    ]
    assert refusals(once(None, ["features"])) == []
