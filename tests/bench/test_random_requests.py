"""The checks of what an engine scores and releases: each of them notices what it is there for."""

import random

import numpy as np
import pytest

from monitor.bench.random_requests import RandomObserver, TrackedRequest
from monitor.model.engine.requests import Finished, Released
from monitor.records import (
    Action,
    Blocks,
    Clamp,
    Coverage,
    Failure,
    FinishReason,
    Phase,
    ScoredTokens,
    TokenBlock,
)


class Dice(random.Random):
    """Rolls what it is told to."""

    def __init__(self, *rolls):
        super().__init__(0)
        self.rolls = list(rolls)

    def random(self):
        return self.rolls.pop(0)


def block(start, *ids, value=0.0):
    readings = np.full((len(ids), 1), value, np.float32)
    return Blocks.of([(0, TokenBlock(Phase.PROMPT, start, ids, readings))])


def observer(*rolls):
    return RandomObserver(Dice(*rolls), (Clamp(3, -1.0),))


def test_it_decides_by_its_dice():
    made = observer(0.1, 0.5, 0.03, 0.002)
    assert made.first.clamps == (Clamp(3, -1.0),)
    assert made.observe_batch(block(0, 7))[0].clamps == (Clamp(3, -1.0),)
    assert made.observe_batch(block(1, 8))[0].clamps == ()
    assert made.observe_batch(block(2, 9))[0].action is Action.BLOCK
    assert (made.shown, made.failures) == ({0: 7, 1: 8, 2: 9}, [])


def test_gaps_and_readings_that_are_none_are_failures():
    made = observer(0.5, 0.5, 0.5)
    made.observe_batch(block(0, 7))
    made.observe_batch(block(2, 9))
    assert made.failures == ["position 2 came after 0"]
    decision = made.observe_batch(block(2, 9, value=np.nan))[0]
    assert (decision.action, decision.failure) == (Action.BLOCK, Failure.NON_FINITE)
    assert made.failures[1] == "non_finite"


def tracked(shown):
    made = observer()
    made.shown.update(shown)
    return TrackedRequest("r", (7,), made, None)


def released(start, *ids):
    tokens = ScoredTokens(
        Phase.RESPONSE, start, ids, np.zeros(0, np.int64), np.zeros((len(ids), 0), np.float32)
    )
    return Released("", tokens)


def ended(run, reason=FinishReason.LENGTH, scored=None, count=0):
    return Finished(reason, Coverage(run, run if scored is None else scored), released=count)


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([released(0, 7), released(1, 8)], []),
        ([released(0, 7), released(1, 9)], ["position 1 was released and not scored"]),
        ([released(0, 7), released(2, 9)], ["position 2 was released after 0"]),
        ([released(3, 5)], ["position 3 was released and not scored", "position 3 was released after -1"]),
    ],
)
def test_only_what_was_scored_is_released_in_order(events, wrong):
    made = tracked({0: 7, 1: 8, 2: 9})
    for event in events:
        made.check_release(event)
    assert made.wrong == wrong


@pytest.mark.parametrize(
    ("last", "wrong"),
    [
        (ended(2), []),
        (ended(3), ["3 run, 3 scored, 2 shown"]),
        (ended(2, scored=1), ["2 run, 1 scored, 2 shown"]),
        (ended(2, count=5), ["text was kept back at the end"]),
        (ended(2, FinishReason.CANCELLED, count=5), []),
    ],
)
def test_the_end_agrees_with_what_was_shown(last, wrong):
    made = tracked({0: 7, 1: 8})
    made.check_end(last)
    assert made.wrong == wrong
    made.check_end(last)
    assert "ended twice" in made.wrong
