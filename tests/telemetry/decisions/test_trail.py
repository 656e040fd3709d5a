"""What a trail remembers of a request, and readings as records hold them."""

import numpy as np
import pytest

from monitor.records import Action, Coverage, Decision, Phase, TokenBlock, WatchPlan
from monitor.telemetry.decisions import tokens
from monitor.telemetry.decisions.trail import Trail
from tests.telemetry.decisions.test_record import DETECTION

WATCH = WatchPlan((3, 7))


class Rules:
    """Answers what it is told to."""

    lead = "leader"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.seen = []

    def begin(self):
        return Decision()

    def observe(self, block):
        self.seen.append(block)
        return self.answers.pop(0) if self.answers else Decision()

    def failed(self, cause):
        self.seen.append(cause)
        return Decision(action=Action.BLOCK)


def block(start, *rows, phase=Phase.RESPONSE, ids=None):
    readings = np.asarray(rows, np.float32).reshape(-1, 2)
    return TokenBlock(phase, start, ids or tuple(range(10, 10 + len(readings))), readings)


def kept(trail):
    """Every (position, column, reading) that is kept."""
    return [
        (part.start + row, column, value) for part in trail.stretches for row, column, value in part.values
    ]


def test_everything_is_handed_on_and_noted():
    rules = Rules(Decision((DETECTION,), Action.SUPPRESS))
    trail = Trail(rules)
    assert trail.begin() == Decision()
    first = block(0, (0, 1), (0, 0), phase=Phase.PROMPT)
    assert trail.observe(first).detections == (DETECTION,)
    trail.observe(block(2, (0, 0)))
    assert rules.seen[0] is first
    assert [found for _, found in trail.detections] == [DETECTION]
    assert trail.action is Action.SUPPRESS
    assert trail.tokens == {Phase.PROMPT: 2, Phase.RESPONSE: 1}
    assert trail.coverage == Coverage(3, 3)
    times = trail.times
    assert 0 < times.begun <= times.read <= times.last
    assert times.rules > 0
    assert trail.failed("gap").action is Action.BLOCK
    assert not trail.coverage.complete
    assert trail.stretches == []


def test_what_else_an_observer_can_do_is_not_hidden():
    trail = Trail(Rules())
    assert trail.lead == "leader"
    with pytest.raises(AttributeError):
        trail.nothing_like_it  # noqa: B018


def test_tokens_that_run_again_are_counted_and_kept_once():
    trail = Trail(Rules(), keep_readings=True)
    trail.observe(block(0, (1, 0), (2, 0)))
    trail.observe(block(0, (1, 0), (2, 0), (3, 0)))
    trail.observe(block(1, (2, 0), (3, 0)))
    assert trail.tokens[Phase.RESPONSE] == 3
    assert kept(trail) == [(0, 0, 1.0), (1, 0, 2.0), (2, 0, 3.0)]


def test_tokens_that_were_taken_back_are_forgotten():
    trail = Trail(Rules(Decision(), Decision(), Decision(restart=3)), keep_readings=True)
    trail.observe(block(0, (1, 0), (1, 0), phase=Phase.PROMPT))
    trail.observe(block(2, (2, 0), (2, 0)))
    trail.observe(block(4, (4, 0)))
    assert trail.tokens[Phase.RESPONSE] == 1
    trail.observe(block(0, (1, 0), (1, 0), phase=Phase.PROMPT))
    trail.observe(block(2, (2, 0), (9, 0)))
    assert trail.tokens == {Phase.PROMPT: 2, Phase.RESPONSE: 2}
    assert kept(trail) == [(0, 0, 1.0), (1, 0, 1.0), (2, 0, 2.0), (3, 0, 9.0)]


def test_too_many_readings_are_not_kept_in_part(monkeypatch):
    monkeypatch.setattr("monitor.telemetry.decisions.trail.MOST_VALUES", 3)
    trail = Trail(Rules(), keep_readings=True)
    trail.observe(block(0, (1, 1)))
    assert trail.whole
    trail.observe(block(1, (1, 1)))
    assert not trail.whole
    trail.observe(block(2, (1, 1)))
    assert trail.stretches == []


def test_readings_come_back_exactly_and_special_tokens_by_position():
    chance = np.random.default_rng(0)
    readings = (chance.standard_normal((6, 2)) * (chance.random((6, 2)) < 0.5)).astype(np.float32)
    trail = Trail(Rules(), special=frozenset({99}), keep_readings=True)
    trail.observe(TokenBlock(Phase.PROMPT, 0, (99, 1, 2, 99), readings[:4]))
    trail.failed("non_finite")
    trail.observe(TokenBlock(Phase.RESPONSE, 4, (5, 99), readings[4:]))
    columns, blocks = tokens.from_json(tokens.to_json(trail.stretches, tokens.column_names(WATCH)))
    assert columns == [3, 7]
    first, failure, second = blocks
    assert failure == "non_finite"
    assert (first.phase, first.start, first.token_ids) == (Phase.PROMPT, 0, (1, 0, 0, 1))
    assert (second.phase, second.start, second.token_ids) == (Phase.RESPONSE, 4, (0, 1))
    assert np.array_equal(np.vstack([first.readings, second.readings]), readings)


def test_readings_that_are_none_are_refused():
    for wrong in ({}, {"columns": [1], "blocks": [{"start": 0}]}, {"columns": [], "blocks": 3}):
        with pytest.raises(ValueError):
            tokens.from_json(wrong)
