"""What breaks while serving, broken on purpose in the real server.

In each case: no unscored token was delivered under `on_error: closed`, the caller got UNKNOWN or an error, the right
counter moved, health tells the truth, and the server recovers or says that it must be restarted.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from monitor.model.batching import Span
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, fails, generation
from tests.rpc.faulty import NOT_SERVING, SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT, small_scene
from tests.rpc.test_generate import wait_for

LONG = 90
"""Tokens to generate: the fault comes long before the end."""


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Faulty]:
    with faulty(tmp_path) as server:
        yield server


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Faulty]:
    with faulty(tmp_path, on_error="open") as server:
        yield server


@contextmanager
def before_layer(server: Faulty, do: Callable[[torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """Runs on what enters the tapped layer of every pass; a tensor that comes back takes its place."""

    def hook(_module: object, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        changed = do(args[0])
        return None if changed is None else (changed, *args[1:])

    handle = server.runtime.loaded.layers[server.runtime.layer].register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def started(server: Faulty, tokens: int = 3, **fields: Any) -> tuple[Any, list[pb.GenerateStreamResponse]]:
    """A stream of which some tokens have come."""
    call = server.stream(SILENT, max_new_tokens=LONG, include_tokens=True, **fields)
    seen: list[pb.GenerateStreamResponse] = []
    for message in call:
        seen.append(message)
        if sum(len(m.chunk.tokens) for m in seen) > tokens + 8:
            break
    return call, seen


def delivered(messages: list[pb.GenerateStreamResponse]) -> list[pb.ScoredToken]:
    return [token for message in messages for token in message.chunk.tokens]


def rest_fails(call: Any, code: str) -> list[pb.GenerateStreamResponse]:
    """What still came before the stream failed."""
    late = []
    with fails(code):
        late += list(iter_into(call, late))
    return late


def iter_into(call: Any, into: list[pb.GenerateStreamResponse]) -> Iterator[pb.GenerateStreamResponse]:
    for message in call:
        into.append(message)
        yield message


class TestTheHookIsRemoved:
    def test_the_stream_ends_and_a_new_hook_heals(self, closed: Faulty) -> None:
        call, _ = started(closed)
        closed.runtime.tap.detach()
        rest_fails(call, "FAILED_PRECONDITION")
        assert closed.metric("monitor_failures_total", cause="tap_missed") >= 1
        assert closed.metric("tokens_unscored_total", cause="tap_missed") >= 1
        assert closed.metric("blocked_requests_total") == 0, "a failure is not a policy's hit"
        wait_for(lambda: closed.health() == NOT_SERVING)
        with fails("FAILED_PRECONDITION"):
            closed.score(SILENT)
        closed.runtime.tap.attach()
        wait_for(lambda: closed.health() == SERVING)
        assert closed.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED

    def test_open_policies_answer_unknown(self, opened: Faulty) -> None:
        opened.runtime.tap.detach()
        response = opened.generate(SILENT, max_new_tokens=4)
        assert response.verdict.status == pb.CHECK_STATUS_UNKNOWN
        assert response.verdict.failure == "tap_missed"
        assert response.verdict.coverage.tokens_scored == 0 < response.verdict.coverage.tokens_run
        scored = opened.score(SILENT).verdict
        assert (scored.status, scored.failure) == (pb.CHECK_STATUS_UNKNOWN, "tap_missed")
        assert opened.metric("monitor_failures_total", cause="tap_missed") == 2
        wait_for(lambda: opened.health() == NOT_SERVING)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
class TestNumbersThatAreNone:
    def test_nothing_is_delivered_after_them(self, closed: Faulty, value: float) -> None:
        call, _ = started(closed)
        broken = threading.Event()

        def spoil(x: torch.Tensor) -> torch.Tensor:
            broken.set()
            return torch.full_like(x, value)

        with before_layer(closed, spoil):
            rest_fails(call, "FAILED_PRECONDITION")
        assert broken.is_set()
        assert closed.metric("monitor_failures_total", cause="non_finite") >= 1
        wait_for(lambda: closed.health() == SERVING)
        response = closed.generate(SILENT, max_new_tokens=4)
        assert response.verdict.status == pb.CHECK_STATUS_CHECKED

    def test_a_text_is_refused(self, closed: Faulty, value: float) -> None:
        with before_layer(closed, lambda x: torch.full_like(x, value)), fails("FAILED_PRECONDITION"):
            closed.score(SILENT)
        assert closed.metric("monitor_failures_total", cause="non_finite") == 1
        assert closed.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED


class TestAWrongRowMap:
    def test_rows_of_a_neighbour_are_not_taken(self, closed: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
        from monitor.model import batching

        right = batching._spans

        def swapped(requests: Any) -> list[Span]:
            spans = right(requests)
            if len(spans) == 2 and spans[0].count == spans[1].count == 1:
                first, second = spans
                spans = [
                    Span(second.request_id, first.first, 1, second.position, first.draws),
                    Span(first.request_id, second.first, 1, first.position, second.draws),
                ]
            return spans

        call, _ = started(closed)
        other, _ = started(closed, temperature=1.0, seed=1)
        monkeypatch.setattr(batching, "_spans", swapped)
        rest_fails(call, "FAILED_PRECONDITION")
        rest_fails(other, "FAILED_PRECONDITION")
        monkeypatch.setattr(batching, "_spans", right)
        assert closed.metric("monitor_failures_total", cause="row_mismatch") == 2
        assert closed.generate(SILENT, max_new_tokens=4).verdict.status == pb.CHECK_STATUS_CHECKED


class TestASlowTap:
    def test_the_deadline_ends_the_generation(self, closed: Faulty) -> None:
        def slow(x: torch.Tensor) -> None:
            time.sleep(0.2)

        with before_layer(closed, slow):
            call = closed.stream(SILENT, timeout=0.7, max_new_tokens=LONG, include_tokens=True)
            seen: list[pb.GenerateStreamResponse] = []
            with fails("DEADLINE_EXCEEDED"):
                seen += list(iter_into(call, seen))
            assert len(delivered(seen)) <= len(SILENT) + 5
            wait_for(lambda: closed.runtime.engine.running() == closed.runtime.engine.queue_depth() == 0)
        assert closed.metric("requests_total", method="GenerateStream", code="DEADLINE_EXCEEDED") == 1
        assert closed.health() == SERVING
        assert closed.generate(SILENT, max_new_tokens=4).verdict.status == pb.CHECK_STATUS_CHECKED


class TestTheEngineDies:
    @pytest.mark.parametrize(
        "error", [RuntimeError("planted"), torch.OutOfMemoryError("planted")], ids=["error", "memory"]
    )
    def test_everybody_is_told_and_the_process_must_go(self, closed: Faulty, error: Exception) -> None:
        call, _ = started(closed)

        def fail(x: torch.Tensor) -> None:
            if threading.current_thread().name != "scorer":
                raise error

        with before_layer(closed, fail):
            rest_fails(call, "UNAVAILABLE")
        wait_for(lambda: closed.health() == NOT_SERVING)
        with fails("UNAVAILABLE"):
            closed.generate(SILENT)
        assert closed.server._health.dead.is_set()
        assert closed.metric("rejected_requests_total", reason="engine") == 1

    def test_the_process_ends_with_a_code_of_its_own(self, tmp_path: Path) -> None:
        scene = small_scene(tmp_path)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in scene.flags.items()]
        command = [sys.executable, "-m", "tests.rpc.dying", *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            assert process.stderr is not None
            address = next(
                match[1] for line in process.stderr if (match := re.search(r"^  grpc +(\S+)", line))
            )
            with connected(address) as channel, fails("UNAVAILABLE"):
                request = pb.GenerateRequest(generation=generation(SILENT))
                MonitorServiceStub(channel).Generate(request, timeout=DEADLINE)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == 3
        assert "the engine died" in said
        assert SILENT not in said

    def test_a_failed_scoring_pass_costs_its_texts_only(self, closed: Faulty) -> None:
        def fail(x: torch.Tensor) -> None:
            raise torch.OutOfMemoryError("planted")

        with before_layer(closed, fail), fails("FAILED_PRECONDITION"):
            closed.score(SILENT)
        assert closed.metric("monitor_failures_total", cause="pass_failed") == 1
        assert closed.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED
        assert closed.health() == SERVING


class TestTheClientGoes:
    def test_the_generation_ends_and_its_cache_is_free(self, closed: Faulty) -> None:
        call, _ = started(closed)
        call.cancel()
        with suppress(grpc.RpcError):
            list(call)
        wait_for(lambda: closed.runtime.engine.running() == closed.runtime.engine.queue_depth() == 0)
        wait_for(lambda: closed.metric("requests_total", method="GenerateStream", code="CANCELLED") == 1)
        assert closed.health() == SERVING
        assert closed.metric("monitor_failures_total") == 0


class TestRulesThatCrash:
    def test_the_text_is_refused_and_the_engine_lives(
        self, closed: Faulty, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from monitor.policy.observer import RequestObserver

        call, _ = started(closed)
        with monkeypatch.context() as patch:

            def crash(self: object, block: object) -> None:
                raise ZeroDivisionError

            patch.setattr(RequestObserver, "observe", crash)
            rest_fails(call, "FAILED_PRECONDITION")
        assert closed.metric("monitor_failures_total", cause="rule_error") == 1
        assert closed.generate(SILENT, max_new_tokens=4).verdict.status == pb.CHECK_STATUS_CHECKED
