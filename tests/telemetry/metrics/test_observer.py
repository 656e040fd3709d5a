"""The metered observer counts what passes through it, and hands everything on."""

from dataclasses import replace

import numpy as np
import pytest

from monitor.policy.policyset import PolicySet
from monitor.records import (
    Action,
    Blocks,
    Clamp,
    Decision,
    Detection,
    Failure,
    Mode,
    Phase,
    Severity,
    TokenBlock,
)
from monitor.telemetry.metrics.observer import MeteredObserver
from tests.rpc.fake import policy
from tests.telemetry.metrics.measured import full, value


class Scripted:
    """One request and its observer, which says what it was told to say."""

    slot = 0

    def __init__(self, first=None, *decisions):
        self.first, self._decisions = first or Decision(), list(decisions)
        self.seen = []

    def observe_batch(self, blocks):
        self.seen.append(blocks)
        decision = self._decisions.pop(0) if self._decisions else None
        return {} if decision is None else {0: decision}


def block(start, tokens, slot=0):
    readings = np.zeros((tokens, 2), np.float32)
    return Blocks.of([(slot, TokenBlock(Phase.PROMPT, start, (1,) * tokens, readings))])


def metered(inner, metrics, meter):
    observer = MeteredObserver(inner, metrics, meter)
    observer.open(inner)
    return observer


def test_the_observer_hands_everything_on(metrics):
    _, meter = full(metrics)
    said = Decision(action=Action.ALERT)
    inner = Scripted(Decision(clamps=(Clamp(1, 1.0),)), said)
    observer = metered(inner, metrics, meter)
    first, second = block(0, 3), block(3, 1)
    assert observer.observe_batch(first) == {0: said}
    assert observer.observe_batch(second) == {}
    assert inner.seen == [first, second]


def test_clamps_that_hold_from_the_start_suppress_from_the_start(metrics):
    _, meter = full(metrics)
    first = Decision(clamps=(Clamp(7, -2.0),), suppressing=("deception",))
    observer = metered(Scripted(first), metrics, meter)
    observer.observe_batch(block(0, 3))
    observer.observe_batch(block(3, 1))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 4
    assert value(metrics, "suppressed_tokens_total", policy="weapons") == 0


def test_suppression_ends_where_the_rules_release_it(metrics):
    _, meter = full(metrics)
    observer = metered(Scripted(None, Decision(suppressing=("deception",)), Decision()), metrics, meter)
    for start, tokens in [(0, 3), (3, 2), (5, 4)]:
        observer.observe_batch(block(start, tokens))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 2


def test_what_could_not_be_scored_is_not_counted_as_scored(metrics):
    _, meter = full(metrics)
    failed = Decision(failure=Failure.GAP)
    observer = metered(Scripted(Decision(suppressing=("deception",)), failed), metrics, meter)
    observer.observe_batch(block(0, 3))
    assert value(metrics, "tokens_scored_total", phase="prompt") == 0
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 0


def test_a_slot_that_another_request_has_begins_anew(metrics):
    _, meter = full(metrics)
    inner = Scripted(None, Decision(suppressing=("deception",)))
    observer = metered(inner, metrics, meter)
    observer.observe_batch(block(0, 3))
    observer.open(inner)
    observer.observe_batch(block(0, 3))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == 0


def test_a_policy_that_blocks_twice_blocked_one_request(metrics):
    _, meter = full(metrics)
    first = Detection(
        "weapons", "word", "weapons", Severity.HIGH, Action.BLOCK, Mode.ENFORCE, Phase.PROMPT, 1, 1.0, 0.5
    )
    second = replace(first, phase=Phase.RESPONSE)
    observer = metered(Scripted(None, Decision((first,)), Decision((second,))), metrics, meter)
    observer.observe_batch(block(0, 2))
    observer.observe_batch(block(2, 1))
    assert value(metrics, "blocked_requests_total", policy="weapons") == 1


@pytest.mark.parametrize(("mode", "suppressed"), [(Mode.ENFORCE, 1), (Mode.SHADOW, 0)])
def test_a_rule_in_shadow_suppresses_nothing(metrics, mode, suppressed):
    shadowed = policy("deception", 7, Action.SUPPRESS, mode=mode, clamps=(Clamp(7, -2.0),))
    _, meter = full(metrics)
    rules = PolicySet((shadowed,), "")
    observer, judge = MeteredObserver(rules.rules, metrics, meter), rules.start(str)
    observer.open(judge)
    for start, reading in ((0, 0.0), (1, 1.0), (2, 0.0)):
        rows = np.full((1, 1), reading, np.float32)
        observer.observe_batch(Blocks.of([(judge.slot, TokenBlock(Phase.PROMPT, start, (start,), rows))]))
    assert value(metrics, "suppressed_tokens_total", policy="deception") == suppressed
