"""Resolved policies: what is enforced, and that nothing changes them while they run."""

import dataclasses

import pytest

from monitor.policy.policy import Condition
from monitor.policy.schema.pooling import Max
from monitor.records import Clamp, Mode, Phase
from tests.policy.conftest import policy, rule


@pytest.mark.parametrize(
    ("modes", "enforced"),
    [
        ([Mode.SHADOW, Mode.SHADOW], False),
        ([Mode.SHADOW, Mode.ENFORCE], True),
        ([Mode.ENFORCE], True),
        ([], True),
    ],
)
def test_a_policy_is_enforced_by_one_rule_or_by_clamping_alone(modes, enforced):
    rules = [rule(f"r{i}", mode=mode) for i, mode in enumerate(modes)]
    assert policy(*rules, clamps=(Clamp(3, -1.0),)).enforced is enforced
    assert [one.enforced for one in rules] == [mode is Mode.ENFORCE for mode in modes]


def test_what_is_left_out_fails_closed_and_keeps_clamps_to_the_end():
    made = policy()
    assert (made.closed, made.clamps_always, made.hold, made.release_below) == (True, False, None, 1.0)
    assert (made.match, made.later, made.refusal) == (None, None, "")
    condition = Condition("c")
    assert (condition.phases, condition.pooling) == ((Phase.PROMPT, Phase.RESPONSE), Max())
    assert (condition.hold, condition.lasts, condition.session) == (1, None, False)


@pytest.mark.parametrize("record", [policy(), rule(), Condition("c")], ids=["policy", "rule", "condition"])
def test_records_do_not_change(record):
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "another"
