"""The words that packages share: clamps, suppressions, watch plans, blocks of readings."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.records import (
    LARGEST_TARGET,
    UNREAD,
    Blocks,
    Clamp,
    Coverage,
    Decision,
    ErrorTerm,
    Failure,
    Phase,
    Probe,
    ScoredTokens,
    Signal,
    Suppression,
    TokenBlock,
    WatchPlan,
    Where,
)


def test_a_plan_has_a_column_for_everything_once():
    probe = Probe("greed", (1.0, 2.0))
    plan = WatchPlan((9, 3), (probe,), (Signal.RESIDUAL_NORM,))
    assert [plan.column(one) for one in (9, 3, probe, Signal.RESIDUAL_NORM)] == [0, 1, 2, 3]
    assert len(plan) == 4
    with pytest.raises(KeyError):
        plan.column(4)
    for twice in (
        {"features": (3, 3)},
        {"features": (), "probes": (probe, Probe("greed", (3.0,)))},
        {"features": (), "signals": (Signal.RESIDUAL_NORM,) * 2},
    ):
        with pytest.raises(ValueError, match="names each feature, probe and signal once"):
            WatchPlan(**twice)


@pytest.mark.parametrize(
    ("before", "after", "score", "threshold", "held"),
    [
        (1.0, 0.09, None, None, True),
        (1.0, 0.11, None, None, False),
        (0.0, 0.0, None, None, True),
        (1.0, 0.0, 0.4, 0.5, True),
        (1.0, 0.0, 0.5, 0.5, False),
        (1.0, 0.0, float("nan"), 0.5, False),
        (1.0, -0.3, 0.4, 0.5, True),
        (1.0, 0.5, 0.4, 0.5, False),
    ],
)
def test_suppression_held_where_the_reading_is_gone_and_did_not_come_back(
    before, after, score, threshold, held
):
    assert Suppression("p", (1,), 3, before, after, score, threshold).held is held


def test_a_clamp_is_only_ever_strengthened():
    mild = Clamp(3, -0.5)
    assert mild.strengthened(None) is mild
    other = Clamp(3, -2.0, Where.EVERYWHERE)
    assert mild.strengthened(other) == other.strengthened(mild) == other
    amplified = Clamp(3, 4.0, Where.EVERYWHERE)
    assert mild.strengthened(amplified) == amplified.strengthened(mild) == mild
    assert amplified.strengthened(Clamp(3, 2.0)) == Clamp(3, 2.0, Where.EVERYWHERE)
    dropped = Clamp(3, 0.0, error_term=ErrorTerm.DROP)
    assert mild.strengthened(dropped) == Clamp(3, -0.5, Where.ACTIVE, ErrorTerm.DROP)


def test_coverage_is_complete_where_everything_that_ran_was_scored():
    assert Coverage().complete
    assert Coverage(5, 5, tokens_truncated=9).complete
    assert not Coverage(5, 4).complete


def block(start, rows, phase=Phase.PROMPT):
    readings = np.asarray(rows, np.float32)
    return TokenBlock(phase, start, tuple(range(start, start + len(readings))), readings)


def several():
    return [
        (4, block(0, [[1, 2], [3, 4], [5, 6]])),
        (9, block(7, [[7, 8]], Phase.RESPONSE)),
        (2, block(0, [[0, 0]])),
    ]


def test_blocks_that_are_put_together_come_apart_again():
    given = several()
    blocks = Blocks.of(given)
    assert (len(blocks), blocks.slots.tolist(), blocks.firsts.tolist()) == (3, [4, 9, 2], [0, 3, 4])
    for number, (_, one) in enumerate(given):
        found = blocks.block(number)
        assert (found.phase, found.start, found.token_ids) == (one.phase, one.start, one.token_ids)
        assert np.array_equal(found.readings, one.readings)
    assert blocks.in_order(blocks.firsts.astype(np.int64)).tolist() == [0, 1, 2, 3, 4]
    assert blocks.in_order(blocks.starts).tolist() == [0, 1, 2, 7, 0]
    ones = Blocks.of(given[1:])
    assert ones.in_order(ones.starts).tolist() == [7, 0]
    assert len(Blocks.of([])) == 0


def test_readings_of_another_shape_are_a_fault_of_their_own_block():
    wrong = TokenBlock(Phase.PROMPT, 0, (1, 2), np.zeros((3, 2), np.float32))
    blocks = Blocks.of([(1, wrong), *several()])
    assert blocks.faults == {0: Failure.SHAPE}
    assert blocks.unscored() == {0: Failure.SHAPE}
    assert blocks.block(1).readings.tolist() == [[1, 2], [3, 4], [5, 6]]
    with pytest.raises(ValueError, match="the same columns"):
        Blocks.of([(1, block(0, [[1]])), (2, block(0, [[1, 2]]))])


def test_readings_that_are_no_numbers_are_found_by_block():
    given = several()
    given[0][1].readings[1, 1] = np.nan
    given[1][1].readings[0, 0] = UNREAD
    given[2][1].readings[0, 0] = np.inf
    assert Blocks.of(given).unscored() == {
        0: Failure.NON_FINITE,
        1: Failure.TAP_MISSED,
        2: Failure.NON_FINITE,
    }
    large = [(1, block(0, [[3e38, 3e38]]))]
    assert Blocks.of(large).unscored() == {}, "a sum that overflows is no fault"


def test_what_could_not_be_scored_is_left_out():
    blocks = Blocks.of(several())
    assert blocks.scored({0: Decision()}) is blocks
    left = blocks.scored({0: Decision(failure=Failure.GAP), 2: Decision()})
    assert left.slots.tolist() == [9, 2]
    assert left.block(0).readings.tolist() == [[7, 8]]


def test_tokens_with_their_active_features_before_and_after_clamps():
    tokens = ScoredTokens(
        Phase.RESPONSE,
        5,
        (10, 11),
        np.array([3, 8]),
        np.array([[0.5, 0.0], [0.0, 0.0]], np.float32),
        np.array([[-1.0, 0.0], [0.0, 2.0]], np.float32),
        np.array([True, False]),
    )
    first, second = tokens.records([f"<{token_id}>" for token_id in tokens.token_ids])
    assert (first.position, first.text, second.position, second.readings) == (5, "<10>", 6, ())
    assert [(r.feature, r.reading, r.after) for r in first.readings] == [(3, 0.5, -1.0)]


TOO_FAR = [
    float("nan"),
    float("inf"),
    -float("inf"),
    1e30,
    -1e30,
    LARGEST_TARGET * 1.01,
    -LARGEST_TARGET * 1.01,
]


@pytest.mark.parametrize("target", TOO_FAR)
def test_no_door_makes_a_clamp_that_would_compute_infinities(target):
    """Requests, policies, notebooks and benchmarks all make this record."""
    with pytest.raises(ValueError, match="target of feature 3 is"):
        Clamp(3, target)
    with pytest.raises(ValueError, match="write a number from -100 to 100"):
        replace(Clamp(3, 0.0), target=target)


@pytest.mark.parametrize("target", [LARGEST_TARGET, -LARGEST_TARGET, 0.0, -2.5])
def test_sensible_targets_are_kept_as_they_are(target):
    assert Clamp(3, target).target == target
