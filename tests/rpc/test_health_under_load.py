"""Health after a fault, in a server with a backlog: whose passes are clean serves, who is blind does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from monitor.v1 import monitor_pb2 as pb
from tests.rpc.faulty import NOT_SERVING, SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT
from tests.rpc.striking import before_layer
from tests.waiting import wait_for

pytestmark = pytest.mark.slow

CALLS = 24
LONGER_THAN_A_PROBE = 7.0
"""Seconds; a probe has five."""


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Faulty]:
    with faulty(tmp_path, blocks=False, on_error="open", max_running=2, queue_size=64) as server:
        yield server


@contextmanager
def backlog(server: Faulty) -> Iterator[list[Future[pb.GenerateResponse]]]:
    """Generations, most of which wait: each takes about a second, and two run at once."""
    with before_layer(server, lambda _: time.sleep(0.02)), ThreadPoolExecutor(CALLS) as threads:
        calls = [threads.submit(server.generate, SILENT, max_new_tokens=40) for _ in range(CALLS)]
        wait_for(lambda: server.runtime.engine.queue_depth() > CALLS // 2)
        yield calls


def test_one_unscored_pass_changes_nothing_where_the_others_are_clean(busy: Faulty) -> None:
    with backlog(busy) as calls:
        struck = []

        def strike(x: torch.Tensor) -> torch.Tensor | None:
            if struck:
                return None
            struck.append(True)
            return torch.full_like(x, float("nan"))

        with before_layer(busy, strike):
            wait_for(lambda: busy.runtime.unscored_passes() > 0)
        until = time.monotonic() + LONGER_THAN_A_PROBE
        while time.monotonic() < until:
            assert busy.health() == SERVING
            time.sleep(0.1)
        assert busy.runtime.engine.queue_depth() > 0, "there was a backlog all the time"
        statuses = [call.result().verdict.status for call in calls]
    assert statuses.count(pb.CHECK_STATUS_UNKNOWN) <= 2, "those of the pass that was struck"


@pytest.mark.parametrize("on_error", ["closed", "open"])
def test_requests_that_break_one_after_another_leave_the_others_and_health_alone(
    tmp_path: Path, on_error: str
) -> None:
    """A caller whose every request holds a token that is no number, among callers whose requests do not."""
    with faulty(tmp_path, blocks=False, on_error=on_error, max_running=4, queue_size=64) as server:
        token = server.runtime.tokenise("~", truncate=False, room=0, reply=False).ids[-1]

        def embed(_module: object, args: tuple, embedded: torch.Tensor) -> torch.Tensor:
            return embedded.masked_fill((args[0] == token).unsqueeze(-1), float("nan"))

        def generate(text: str) -> pb.GenerateResponse:
            return server.generate(text, max_new_tokens=30)

        expected = generate(SILENT).text
        handle = server.runtime.loaded.model.get_input_embeddings().register_forward_hook(embed)
        with before_layer(server, lambda _: time.sleep(0.01)), ThreadPoolExecutor(CALLS) as threads:
            broken = [threads.submit(generate, "~ this one") for _ in range(CALLS // 2)]
            sound = [threads.submit(generate, SILENT) for _ in range(CALLS // 2)]
            while not all(call.done() for call in sound):
                assert server.health() == SERVING
                time.sleep(0.05)
        handle.remove()
        for call in sound:
            assert call.result().text == expected
            assert call.result().verdict.status == pb.CHECK_STATUS_CHECKED
        for call in broken:
            if on_error == "closed":
                assert call.exception().code().name == "FAILED_PRECONDITION"
            else:
                verdict = call.result().verdict
                assert (verdict.status, verdict.failure) == (pb.CHECK_STATUS_UNKNOWN, "non_finite")
                assert verdict.coverage.tokens_scored == 0
        assert not any(sequence.suspect for sequence in server.runtime.engine._sequences.values())


def test_passes_that_are_all_unscored_end_it_and_clean_ones_bring_it_back(busy: Faulty) -> None:
    with backlog(busy) as calls:
        with before_layer(busy, lambda x: torch.full_like(x, float("nan"))):
            wait_for(lambda: busy.health() == NOT_SERVING, 30)
        wait_for(lambda: busy.health() == SERVING, 30)
        for call in calls:
            call.exception()
