"""What a trail remembers of a request, and readings as records hold them."""

import gc

import numpy as np

from monitor.records import Action, Blocks, Coverage, Decision, Failure, Phase, TokenBlock, WatchPlan
from monitor.telemetry.decisions import tokens
from monitor.telemetry.decisions.trail import Trails
from tests.telemetry.decisions.test_record import DETECTION

WATCH = WatchPlan((3, 7))


class Request:
    """One request and its observer, which answers what it is told to."""

    def __init__(self, *answers, slot=0):
        self.slot, self.first = slot, Decision()
        self.action, self.failure = Action.ALLOW, None
        self.answers = list(answers)
        self.seen = []

    def observe_batch(self, blocks):
        self.seen.append(blocks)
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            return {}
        self.action, self.failure = max(self.action, answer.action), self.failure or answer.failure
        return {0: answer}


def block(start, *rows, phase=Phase.RESPONSE, ids=None, slot=0):
    readings = np.asarray(rows, np.float32).reshape(-1, 2)
    ids = ids or tuple(range(10, 10 + len(readings)))
    return Blocks.of([(slot, TokenBlock(phase, start, ids, readings))])


def kept(trail):
    """Every (position, column, reading) that is kept."""
    return [
        (part.start + row, column, value) for part in trail.stretches for row, column, value in part.values
    ]


def test_everything_is_handed_on_and_noted():
    refused = Decision(action=Action.BLOCK, failure=Failure.GAP)
    request = Request(Decision((DETECTION,), Action.SUPPRESS), None, refused)
    trails = Trails(request)
    trail = trails.open(request)
    trail.admitted()
    first = block(0, (0, 1), (0, 0), phase=Phase.PROMPT)
    assert trails.observe_batch(first)[0].detections == (DETECTION,)
    assert trails.observe_batch(block(2, (0, 0))) == {}
    assert request.seen[0] is first
    assert [found for _, found in trail.detections] == [DETECTION]
    assert trail.request.action is Action.SUPPRESS
    assert trail.tokens == {Phase.PROMPT: 2, Phase.RESPONSE: 1}
    assert trail.coverage == Coverage(3, 3)
    times = trail.times
    assert 0 < times.begun <= times.admitted <= times.read <= times.last
    assert times.rules > 0
    assert trails.observe_batch(block(3, (0, 0))) == {0: refused}
    assert trail.tokens == {Phase.PROMPT: 2, Phase.RESPONSE: 1}
    assert not trail.coverage.complete
    assert trail.stretches == []


def test_requests_of_one_pass_have_what_is_theirs():
    requests = [Request(slot=slot) for slot in (3, 200)]
    trails = Trails(requests[0])
    one, other = map(trails.open, requests)
    rows = np.zeros((3, 2), np.float32)
    trails.observe_batch(
        Blocks.of(
            [
                (200, TokenBlock(Phase.PROMPT, 0, (1, 2), rows[:2])),
                (3, TokenBlock(Phase.RESPONSE, 9, (1,), rows[:1])),
            ]
        )
    )
    assert (one.tokens, other.tokens) == (
        {Phase.PROMPT: 0, Phase.RESPONSE: 1},
        {Phase.PROMPT: 2, Phase.RESPONSE: 0},
    )
    assert one.times.last == other.times.last == other.times.read
    assert one.times.read == 0
    again = trails.open(Request(slot=200))
    assert sum(again.tokens.values()) == again.times.last == 0


def test_a_trail_that_nobody_holds_is_not_kept():
    request = Request(None, Decision((DETECTION,)))
    trails = Trails(request, readings=True)
    trails.open(request)
    gc.collect()
    trails.observe_batch(block(0, (1, 0)))
    assert trails.observe_batch(block(1, (1, 0)))[0].detections == (DETECTION,)
    assert len(trails._open) == 0


def test_too_many_readings_are_not_kept_in_part(monkeypatch):
    monkeypatch.setattr("monitor.telemetry.decisions.trail.MOST_VALUES", 3)
    request = Request()
    trails = Trails(request, readings=True)
    trail = trails.open(request)
    trails.observe_batch(block(0, (1, 1)))
    assert trail.whole
    assert kept(trail) == [(0, 0, 1.0), (0, 1, 1.0)]
    trails.observe_batch(block(1, (1, 1)))
    assert not trail.whole
    trails.observe_batch(block(2, (1, 1)))
    assert trail.stretches == []


def test_readings_come_back_exactly_and_special_tokens_by_position():
    chance = np.random.default_rng(0)
    readings = (chance.standard_normal((6, 2)) * (chance.random((6, 2)) < 0.5)).astype(np.float32)
    request = Request(None, Decision(failure=Failure.NON_FINITE))
    trails = Trails(request, special=frozenset({99}), readings=True)
    trail = trails.open(request)
    trails.observe_batch(block(0, *readings[:4], phase=Phase.PROMPT, ids=(99, 1, 2, 99)))
    trails.observe_batch(block(4, (np.nan, 0)))
    trails.observe_batch(block(4, *readings[4:], ids=(5, 99)))
    columns, blocks = tokens.from_json(tokens.to_json(trail.stretches, tokens.column_names(WATCH)))
    assert columns == [3, 7]
    first, failure, second = blocks
    assert failure is Failure.NON_FINITE
    assert (first.phase, first.start, first.token_ids) == (Phase.PROMPT, 0, (1, 0, 0, 1))
    assert (second.phase, second.start, second.token_ids) == (Phase.RESPONSE, 4, (0, 1))
    assert np.array_equal(np.vstack([first.readings, second.readings]), readings)


def test_readings_of_one_request_are_kept_where_no_others_are():
    first, second = Request(), Request(slot=1)
    trails = Trails(first)
    asked, other = trails.open(first, readings=True), trails.open(second)
    pair = [(0, block(4, [0.5, 0])), (1, block(4, [0.25, 0], slot=1))]
    for _, blocks in pair:
        trails.observe_batch(blocks)
    assert kept(asked) == [(4, 0, 0.5)]
    assert kept(other) == []
    del asked
    gc.collect()
    trails.observe_batch(block(5, [0.5, 0], slot=1))
    assert kept(other) == []
