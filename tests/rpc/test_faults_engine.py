"""The engine that is slow, dies or loses its caller in the midst of a stream, in the real server.

In each case: the caller was given each token that was scored before and nothing from there on, and then a status; the
right counters moved; health tells the truth; and the server goes on, or says that it must be started again and exits.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.children import ending
from tests.rpc.conftest import DEADLINE, connected, fails, generation
from tests.rpc.dying import DRAWS
from tests.rpc.faulty import NOT_SERVING, SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT, small_scene
from tests.rpc.striking import (
    LONG,
    PROMPT,
    SOUND,
    before_layer,
    broken,
    delivered_before,
    long_stream,
    striking,
    until_it_fails,
    whole,
)
from tests.waiting import wait_for


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Faulty]:
    with faulty(tmp_path, blocks=False) as server:
        yield server


def idle(server: Faulty) -> bool:
    engine = server.runtime.engine
    return engine.running() == engine.queue_depth() == 0


def free_pages(server: Faulty) -> float:
    return server.runtime.engine._batcher._manager.batch_processor.cache.compute_free_capacity(relative=False)


class TestASlowTap:
    @pytest.mark.slow
    def test_the_deadline_ends_the_generation(self, closed: Faulty) -> None:
        pages, expected, over = free_pages(closed), whole(closed), threading.Event()

        def slow(_: torch.Tensor) -> None:
            assert over.wait(DEADLINE)

        with striking(closed, slow) as strike:
            try:
                seen = until_it_fails(long_stream(closed, timeout=3.0), "DEADLINE_EXCEEDED")
                wait_for(lambda: ended(closed, "DEADLINE_EXCEEDED") == 1)
                assert closed.health() == SERVING, "the engine runs, however slowly"
            finally:
                over.set()
            wait_for(lambda: idle(closed))
            assert strike.rows <= SOUND + 2, "the slow pass, and the one that was laid out behind it"
        delivered_before(seen, expected, SOUND)
        wait_for(lambda: free_pages(closed) == pages)
        assert closed.metric("monitor_failures_total") == 0
        assert whole(closed).text == expected.text


class TestTheClientGoes:
    @pytest.mark.slow
    def test_the_generation_ends_and_its_cache_is_free(self, closed: Faulty) -> None:
        pages, expected, over = free_pages(closed), whole(closed), threading.Event()
        seen: list[pb.GenerateStreamResponse] = []

        with striking(
            closed, lambda _: None if over.wait(DEADLINE) else pytest.fail("nobody went on")
        ) as strike:
            try:
                call = long_stream(closed)
                while sum(len(message.chunk.tokens) for message in seen) < SOUND:
                    seen.append(next(call))
                assert strike.struck.wait(DEADLINE)
                assert free_pages(closed) < pages
                call.cancel()
                wait_for(lambda: ended(closed, "CANCELLED") == 1)
            finally:
                over.set()
            wait_for(lambda: idle(closed))
            assert strike.rows <= SOUND + 2, "the pass that ran meanwhile, and the one laid out behind it"
        delivered_before(seen, expected, SOUND)
        wait_for(lambda: free_pages(closed) == pages)
        assert closed.health() == SERVING
        assert closed.metric("monitor_failures_total") == 0
        assert whole(closed).text == expected.text


def ended(server: Faulty, code: str) -> float:
    return server.metric("requests_total", method="GenerateStream", code=code)


DEATHS = {
    "error": RuntimeError("planted"),
    "out of memory": torch.OutOfMemoryError("planted"),
    "killed": SystemExit("planted"),
}


class TestTheEngineDies:
    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    @pytest.mark.parametrize("error", DEATHS.values(), ids=DEATHS)
    def test_everybody_is_told_and_the_process_must_go(self, closed: Faulty, error: BaseException) -> None:
        def fail(_: torch.Tensor) -> None:
            if threading.current_thread().name != "scorer":
                raise error

        broken(closed, fail, "UNAVAILABLE")
        assert ended(closed, "UNAVAILABLE") == 1
        wait_for(lambda: closed.health() == NOT_SERVING)
        assert closed.metric("serving") == 0
        with fails("UNAVAILABLE"):
            closed.generate(SILENT)
        assert closed.metric("rejected_requests_total", reason="engine") == 1
        assert closed.server._health.dead.is_set(), "what `serve` waits for, to exit"

    @pytest.mark.slow
    def test_the_process_ends_with_a_code_of_its_own(self, tmp_path: Path) -> None:
        scene = small_scene(tmp_path)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in scene.flags.items()]
        command = [sys.executable, "-m", "tests.rpc.dying", *flags]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        with ending(process):
            assert process.stderr is not None
            address = next(
                match[1] for line in process.stderr if (match := re.search(r"^  grpc +(\S+)", line))
            )
            with connected(address) as channel:
                asked = generation(SILENT, max_new_tokens=LONG, include_tokens=True)
                call = MonitorServiceStub(channel).GenerateStream(
                    pb.GenerateStreamRequest(generation=asked), timeout=DEADLINE
                )
                seen = until_it_fails(call, "UNAVAILABLE")
            _, said = process.communicate(timeout=60)
        positions = [token.position for message in seen for token in message.chunk.tokens]
        assert positions == list(range(PROMPT + DRAWS - 2)), "the pass of the last draw was not scored"
        assert process.returncode == 3
        assert "the engine died" in said
        assert SILENT not in said


class TestLogitsThatAreNoNumbers:
    @pytest.mark.slow
    def test_no_token_is_made_up_and_health_says_how_long_it_lasts(self, closed: Faulty) -> None:
        expected, struck = whole(closed), threading.Event()

        def spoil(_module: object, _args: object, logits: torch.Tensor) -> torch.Tensor | None:
            return torch.full_like(logits, float("nan")) if struck.is_set() else None

        handle = closed.runtime.loaded.model.get_output_embeddings().register_forward_hook(spoil)
        try:
            with striking(closed, lambda _: struck.set()):
                seen = until_it_fails(long_stream(closed), "INTERNAL")
            tokens = [token for message in seen for token in message.chunk.tokens]
            assert SOUND <= len(tokens) <= SOUND + 1, "the pass that was struck was scored; it drew nothing"
            assert [t.token_id for t in tokens] == [t.token_id for t in expected.tokens[: len(tokens)]]
            assert not any(message.HasField("final") for message in seen)
            wait_for(lambda: closed.health() == NOT_SERVING)
        finally:
            handle.remove()
        wait_for(lambda: closed.health() == SERVING)
        assert whole(closed).text == expected.text


class TestAScoringPassFails:
    @pytest.mark.slow
    def test_it_costs_its_texts_only(self, closed: Faulty) -> None:
        expected = whole(closed)
        scored = closed.metric("tokens_scored_total")

        def fail(_: torch.Tensor) -> None:
            raise torch.OutOfMemoryError("planted")

        with before_layer(closed, fail), fails("FAILED_PRECONDITION"):
            closed.score(SILENT)
        assert closed.metric("tokens_scored_total") == scored
        assert closed.metric("monitor_failures_total", cause="pass_failed") == 1
        assert closed.metric("tokens_unscored_total", cause="pass_failed") == PROMPT
        assert closed.score(SILENT).verdict.status == pb.CHECK_STATUS_CHECKED
        assert closed.health() == SERVING
        assert whole(closed).text == expected.text
