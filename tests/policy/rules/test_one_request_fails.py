"""Rules see many requests in one call: what fails for one of them is said of that one alone."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.policy.policyset import PolicySet
from monitor.policy.rules.observer import RequestRules
from monitor.policy.rules.sessions import SessionPools
from monitor.policy.schema.policy import Cumulative
from monitor.records import UNREAD, Action, Blocks, Failure, Status
from tests.policy.conftest import block, policy, rule, word

ALL = "sha256:" + "0" * 64
QUIET, LOUD = [[0.0], [0.1], [0.1]], [[0.0], [0.9], [0.9]]


def planted(*_: object, **__: object) -> None:
    raise RuntimeError("planted")


def together(requests: list[RequestRules], readings: list[list[list[float]]]):
    """Decisions by request, of one call for all of them."""
    blocks = Blocks.of([(r.slot, block(rows)) for r, rows in zip(requests, readings, strict=True)])
    decisions = requests[0]._rules.observe_batch(blocks)
    return [decisions.get(number) for number in range(len(requests))]


def started(rules: PolicySet, count: int = 3, session: str = "") -> list[RequestRules]:
    return [rules.start(word, session=f"{session}{n}" if session else "") for n in range(count)]


def test_one_that_cannot_fail_is_withheld(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = started(PolicySet((policy(rule(), closed=False),), ALL))
    broken = requests[1]
    failed = RequestRules.failed
    monkeypatch.setattr(
        RequestRules, "failed", lambda r, cause: planted() if r is broken else failed(r, cause)
    )
    unread = np.full((3, 1), UNREAD).tolist()
    first, second, third = together(requests, [LOUD, unread, unread])
    assert first.failure is None
    assert len(first.detections) == 1
    assert (second.action, second.failure) == (Action.BLOCK, Failure.TAP_MISSED)
    assert (third.action, third.failure) == (Action.ALLOW, Failure.TAP_MISSED)


def test_one_whose_decision_cannot_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = started(PolicySet((policy(rule()),), ALL))
    decision = RequestRules.decision

    def said(request: RequestRules, *args: object, **options: object):
        if request is requests[1] and args:
            planted()
        return decision(request, *args, **options)

    monkeypatch.setattr(RequestRules, "decision", said)
    first, second, third = together(requests, [LOUD, LOUD, LOUD])
    assert second.failure is Failure.RULE_ERROR
    assert requests[1].status is Status.UNKNOWN
    for found in (first, third):
        assert found.failure is None
        assert len(found.detections) == 1


def test_one_whose_conversation_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    summed = rule(pooling=Cumulative(), threshold=9.0, session=True)
    requests = started(PolicySet((policy(rule(name="now"), summed),), ALL), session="talk")
    show = SessionPools.show

    def shown(pools: SessionPools, *args: object) -> None:
        if pools is requests[1].session:
            planted()
        show(pools, *args)

    monkeypatch.setattr(SessionPools, "show", shown)
    first, second, third = together(requests, [LOUD, LOUD, LOUD])
    assert second.failure is Failure.RULE_ERROR
    for found, request in ((first, requests[0]), (third, requests[2])):
        assert found.failure is None
        assert len(found.detections) == 1
        assert request.status is Status.CHECKED
