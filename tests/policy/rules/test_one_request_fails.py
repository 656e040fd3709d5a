"""Rules see many requests in one call: what fails for one of them is said of that one alone."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from monitor.policy.policyset import PolicySet
from monitor.policy.rules.observer import RequestRules, Rules
from monitor.policy.rules.sessions import SessionPools
from monitor.policy.schema.policy import Cumulative
from monitor.records import UNREAD, Action, Blocks, Failure, Status
from monitor.telemetry.decisions.trail import Trail, Trails
from monitor.telemetry.metrics.metrics import Metrics
from monitor.telemetry.metrics.observer import MeteredObserver
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


class TestWhoWatchesAsWell:
    """The decision log and the metrics wrap the rules; what they fail to note concerns one request, or none."""

    def observed(self, observer: object, requests: list[RequestRules], readings: list) -> list:
        blocks = Blocks.of([(r.slot, block(rows)) for r, rows in zip(requests, readings, strict=True)])
        decisions = observer.observe_batch(blocks)
        return [decisions.get(number) for number in range(len(requests))]

    @pytest.mark.parametrize("closed", [True, False])
    @pytest.mark.parametrize("readings", [True, False])
    def test_one_whose_trail_cannot_be_kept(
        self, monkeypatch: pytest.MonkeyPatch, closed: bool, readings: bool
    ) -> None:
        requests = started(PolicySet((policy(rule(), closed=closed),), ALL))
        trails = Trails(requests[0]._rules, readings=readings)
        kept = [trails.open(request) for request in requests]
        note = Trails._note

        def noted(self: Trails, trail: Trail, decision: object) -> None:
            planted() if trail is kept[1] else note(self, trail, decision)

        monkeypatch.setattr(Trails, "_note", noted)
        first, second, third = self.observed(trails, requests, [LOUD, LOUD, LOUD])
        assert (second.failure, len(second.detections)) == (Failure.RULE_ERROR, 1)
        assert second.action is (Action.BLOCK if closed else Action.ALERT)
        assert requests[1].status is Status.UNKNOWN
        for found, request in ((first, requests[0]), (third, requests[2])):
            assert found.failure is None
            assert len(found.detections) == 1
            assert request.status is Status.CHECKED
        assert [len(trail.detections) for trail in kept] == [1, 0, 1]

    def test_tokens_that_the_log_cannot_count(self, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = started(PolicySet((policy(rule()),), ALL))
        trails = Trails(requests[0]._rules)
        kept = [trails.open(request) for request in requests]
        monkeypatch.setattr(Trails, "_count", planted)
        found = self.observed(trails, requests, [LOUD, QUIET, QUIET])
        assert [decision.failure for decision in found] == [Failure.RULE_ERROR] * len(kept)
        assert [request.status for request in requests] == [Status.UNKNOWN] * len(kept)

    def test_rules_that_cannot_take_that_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        requests = started(PolicySet((policy(rule(), closed=False),), ALL))
        trails = Trails(requests[0]._rules)
        kept = [trails.open(request) for request in requests]
        observe = Rules.observe_batch
        monkeypatch.setattr(Trails, "_note", planted)
        monkeypatch.setattr(
            Rules, "observe_batch", lambda r, blocks: planted() if blocks.faults else observe(r, blocks)
        )
        first, second, _ = self.observed(trails, requests, [LOUD, QUIET, QUIET])
        assert (first.action, first.failure) == (Action.BLOCK, Failure.RULE_ERROR)
        assert second is None
        assert kept

    @pytest.mark.parametrize("name", ["_note", "_count_suppressed"])
    def test_metrics_that_cannot_count(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        metrics = Metrics(CollectorRegistry())
        requests = started(PolicySet((policy(rule()),), ALL))
        meter = metrics.policies_changed(PolicySet((policy(rule()),), ALL))
        observer = MeteredObserver(requests[0]._rules, metrics, meter)
        observer._suppressing = {9: ("p",)}
        monkeypatch.setattr(MeteredObserver, name, planted)
        with capture_logs() as told:
            for request in requests:
                observer.open(request)
            found = self.observed(observer, requests, [LOUD, LOUD, QUIET])
        assert [decision and decision.failure for decision in found] == [None, None, None]
        assert [len(decision.detections) for decision in found[:2]] == [1, 1]
        assert [request.status for request in requests] == [Status.CHECKED] * 3
        missed = [line for line in told if line["event"] == "metrics miss what happened"]
        assert [line["times"] for line in missed] == ([1, 2, 4] if name == "_note" else [1])
