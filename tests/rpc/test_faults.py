"""Monitoring that breaks in the midst of a stream, in the real server: the hook is gone, numbers are none, rows are
mixed up, a rule crashes.

In each case: the caller was given each token that was scored before the fault and nothing from there on, and then an
error (`on_error: open`: UNKNOWN, with what was not scored left out of the coverage); the right counters moved; health
says NOT_SERVING for as long as it lasts; and the server recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from monitor.model.engine import paged
from monitor.model.tap.span import Span
from monitor.policy.rules.observer import Rules
from monitor.records import Blocks
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import fails
from tests.rpc.faulty import NOT_SERVING, SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT
from tests.rpc.striking import (
    PROMPT,
    SOUND,
    before_layer,
    delivered_before,
    long_stream,
    striking,
    until_it_fails,
    whole,
)
from tests.waiting import wait_for

CLOSED = "FAILED_PRECONDITION"


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Faulty]:
    with faulty(tmp_path, blocks=False) as server:
        yield server


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Faulty]:
    with faulty(tmp_path, blocks=False, on_error="open") as server:
        yield server


@dataclass(frozen=True)
class Breakage:
    """What strikes, what it is called, and what makes it good again besides leaving."""

    cause: str
    strike: Callable[[Faulty, torch.Tensor], torch.Tensor | None]
    heal: Callable[[Faulty], None] = lambda _: None


BREAKAGES = {
    "hook removed": Breakage(
        "tap_missed",
        lambda server, _: server.runtime.tap.detach(),
        lambda server: server.runtime.tap.attach(),
    ),
    "nan": Breakage("non_finite", lambda _, x: torch.full_like(x, float("nan"))),
    "inf": Breakage("non_finite", lambda _, x: torch.full_like(x, float("inf"))),
    "-inf": Breakage("non_finite", lambda _, x: torch.full_like(x, float("-inf"))),
}


@pytest.fixture(params=BREAKAGES.values(), ids=BREAKAGES)
def breakage(request: pytest.FixtureRequest) -> Breakage:
    return request.param


def recovered(server: Faulty, expected: pb.GenerateResponse) -> None:
    """It serves, checks, and gives what it always gave."""
    wait_for(lambda: server.health() == SERVING)
    assert server.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED
    response = whole(server)
    assert response.verdict.status == pb.CHECK_STATUS_CHECKED
    assert response.text == expected.text


class TestUnderClosed:
    @pytest.mark.slow
    def test_nothing_is_delivered_from_there_on(self, closed: Faulty, breakage: Breakage) -> None:
        expected = whole(closed)
        scored = closed.metric("tokens_scored_total")
        with striking(closed, lambda x: breakage.strike(closed, x)) as strike:
            seen = until_it_fails(long_stream(closed), CLOSED)
            assert strike.struck.is_set()
            delivered_before(seen, expected, SOUND)
            assert closed.metric("tokens_scored_total") == scored + SOUND
            assert closed.metric("monitor_failures_total", cause=breakage.cause) == 1
            assert closed.metric("tokens_unscored_total", cause=breakage.cause) == 1, (
                "the pass that was struck"
            )
            assert closed.metric("requests_total", method="GenerateStream", code=CLOSED) == 1
            assert closed.metric("blocked_requests_total") == 0, "a failure is not a policy's hit"
            wait_for(lambda: closed.health() == NOT_SERVING)
            assert closed.metric("serving") == 0
        breakage.heal(closed)
        recovered(closed, expected)
        assert closed.metric("monitor_failures_total") == 1

    @pytest.mark.slow
    def test_an_answer_in_one_piece_is_withheld(self, closed: Faulty, breakage: Breakage) -> None:
        with striking(closed, lambda x: breakage.strike(closed, x)), fails(CLOSED) as caught:
            closed.generate(SILENT, max_new_tokens=60)
        assert caught[0].details() == "the request could not be served"
        assert closed.metric("monitor_failures_total", cause=breakage.cause) == 1

    @pytest.mark.slow
    def test_a_text_is_refused(self, closed: Faulty, breakage: Breakage) -> None:
        with before_layer(closed, lambda x: breakage.strike(closed, x)):
            with fails(CLOSED):
                closed.score(SILENT)
            assert closed.metric("monitor_failures_total", cause=breakage.cause) == 1
            assert closed.metric("tokens_unscored_total", cause=breakage.cause) == PROMPT
            assert closed.metric("tokens_scored_total") == 0
            wait_for(lambda: closed.health() == NOT_SERVING)
        breakage.heal(closed)
        wait_for(lambda: closed.health() == SERVING)
        assert closed.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED


class TestUnderOpen:
    @pytest.mark.slow
    def test_the_verdict_is_unknown_and_says_how_much_was_scored(
        self, opened: Faulty, breakage: Breakage
    ) -> None:
        expected = whole(opened)
        with striking(opened, lambda x: breakage.strike(opened, x)):
            response = opened.generate(SILENT, max_new_tokens=60)
            verdict = response.verdict
            assert (verdict.status, verdict.failure) == (pb.CHECK_STATUS_UNKNOWN, breakage.cause)
            assert verdict.coverage.tokens_scored == SOUND < verdict.coverage.tokens_run
            text = opened.score(SILENT).verdict
            assert (text.status, text.failure) == (pb.CHECK_STATUS_UNKNOWN, breakage.cause)
            assert text.coverage.tokens_scored == 0 < text.coverage.tokens_run
            assert opened.metric("monitor_failures_total", cause=breakage.cause) == 2
            assert opened.metric("fail_open_requests_total", cause=breakage.cause) == 2
            wait_for(lambda: opened.health() == NOT_SERVING)
        breakage.heal(opened)
        recovered(opened, expected)


class Pair:
    """Two generations that run together, and what the library said of them before anything was done to it."""

    def __init__(self, server: Faulty, patch: pytest.MonkeyPatch, swap: bool = False) -> None:
        self.sound: dict[str, int] = {}
        """Tokens of each request that ran before the first pass that decodes one token of both."""
        self.first = ""
        """Whose row came first in that pass."""
        self._ran: dict[str, int] = {}
        self._engine, self._right, self._swap = server.runtime.engine, paged._spans, swap
        patch.setattr(paged, "_spans", self._spans)

    def gather(self, _: torch.Tensor) -> None:
        """As a fault: holds the first generation until the second is there."""
        wait_for(lambda: self._engine.running() + self._engine.queue_depth() == 2)

    def leads(self) -> bool:
        """True where the first of them is the first of the pass."""
        return bool(self._engine._batcher._spans[0].request_id == self.first)

    def _spans(self, requests: Any, drawn_from: Any) -> list[Span]:
        spans = self._right(requests, drawn_from)
        if len(spans) != 2 or not spans[0].count == spans[1].count == 1:
            if not self.sound:
                self._ran |= {span.request_id: span.position + span.count for span in spans}
            return spans
        first, second = spans
        if not self.sound:
            self.sound, self.first = dict(self._ran), first.request_id
        return [replace(first, **_whose(second)), replace(second, **_whose(first))] if self._swap else spans


def _whose(span: Span) -> dict[str, Any]:
    return {"request_id": span.request_id, "position": span.position, "draws": span.draws}


class TestTwoTogether:
    @pytest.mark.slow
    def test_rows_of_a_neighbour_are_not_taken(self, closed: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        other = {"temperature": 1.0, "seed": 1}
        expected = [whole(closed), whole(closed, **other)]
        with monkeypatch.context() as patch:
            pair = Pair(closed, patch, swap=True)
            with striking(closed, once(pair.gather)):
                calls = [long_stream(closed), long_stream(closed, **other)]
                seen = [until_it_fails(call, CLOSED) for call in calls]
        for messages, response in zip(seen, expected, strict=True):
            delivered_before(messages, response, pair.sound[messages[0].request_id])
        assert closed.metric("monitor_failures_total", cause="row_mismatch") == 2
        assert closed.metric("tokens_unscored_total", cause="row_mismatch") == 2
        assert closed.metric("requests_total", method="GenerateStream", code=CLOSED) == 2
        recovered(closed, expected[0])

    @pytest.mark.slow
    def test_what_is_no_number_in_one_row_costs_that_request(
        self, closed: Faulty, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The neighbour, whose attention adds 0 · NaN at first, is computed apart and goes on."""
        expected = whole(closed)
        with monkeypatch.context() as patch:
            pair = Pair(closed, patch)
            gather = once(pair.gather)

            def spoil_the_first_row(x: torch.Tensor) -> torch.Tensor | None:
                gather(x)
                if x.shape[-2] != 2 or not pair.leads():  # a test of health may come beside the second
                    return None
                return x.index_fill(-2, torch.tensor([0]), float("nan"))

            with striking(closed, spoil_the_first_row):
                ended = [read_to_the_end(call) for call in (long_stream(closed), long_stream(closed))]
        assert pair.first in {seen[0].request_id for seen, code in ended if code == CLOSED}
        for seen, code in ended:
            if code == CLOSED:
                delivered_before(seen, expected, pair.sound[seen[0].request_id])
            else:
                assert code == "OK"
                assert seen[-1].final.verdict.status == pb.CHECK_STATUS_CHECKED
                assert "".join(message.chunk.text for message in seen) == expected.text
        failed = sum(code == CLOSED for _, code in ended)
        assert failed == 1
        assert closed.metric("monitor_failures_total", cause="non_finite") == failed
        recovered(closed, expected)


def once(do: Callable[[torch.Tensor], None]) -> Callable[[torch.Tensor], None]:
    waiting = [do]
    return lambda x: waiting.pop()(x) if waiting else None


def read_to_the_end(call: Any) -> tuple[list[pb.GenerateStreamResponse], str]:
    seen: list[pb.GenerateStreamResponse] = []
    with suppress(grpc.RpcError):
        for message in call:
            seen.append(message)
    return seen, call.code().name


class TestRulesThatCrash:
    @pytest.mark.slow
    def test_the_text_is_refused_and_the_engine_lives(
        self, closed: Faulty, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected, scored = whole(closed), Rules._scored

        def crash(self: Rules, blocks: Blocks, *rest: Any) -> Any:
            if (blocks.starts >= SOUND).any():
                raise ZeroDivisionError
            return scored(self, blocks, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(Rules, "_scored", crash)
            delivered_before(until_it_fails(long_stream(closed), CLOSED), expected, SOUND)
        assert closed.metric("monitor_failures_total", cause="rule_error") == 1
        assert closed.metric("tokens_unscored_total", cause="rule_error") == 1
        assert closed.health() == SERVING, "one request's rules crashed; others can be served"
        recovered(closed, expected)
