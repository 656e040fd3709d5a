"""Texts that are longer than a pass, in the real server: exact, in turn with others, and ended with their callers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from monitor.model.engine import chunks
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, fails
from tests.rpc.faulty import SERVING, Faulty, faulty
from tests.rpc.pairs import SILENT, SPEAKS
from tests.rpc.striking import before_layer
from tests.waiting import wait_for

TEXT = f"{SILENT}. {SPEAKS} {SILENT}."
"""As long as the small model's context nearly, and a rule fires in its midst."""
CHUNK = 16
PASSES = -(-(len(TEXT) + 1) // CHUNK)
PAUSE = 0.25
"""Seconds that each pass of more than a few tokens takes."""

pytestmark = pytest.mark.slow


@pytest.fixture
def cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A server whose scoring passes hold few tokens, and which counts as hanging after less than a long text takes."""
    monkeypatch.setattr(chunks, "PASS", {True: CHUNK, False: CHUNK})
    with faulty(tmp_path, blocks=False, stall_seconds=4 * PAUSE) as server:
        yield server


def score(server: Faulty, **options: float) -> pb.ScoreResponse:
    request = pb.ScoreRequest(input=pb.Input(text=TEXT), include_tokens=True)
    return server.stub.Score(request, **{"timeout": DEADLINE} | options)


def inspect(server: Faulty, **options: float) -> pb.InspectResponse:
    request = pb.InspectRequest(input=pb.Input(text=TEXT), top_k=3)
    return server.stub.Inspect(request, **{"timeout": DEADLINE} | options)


class Slow:
    """Every pass of many tokens pauses; counted by thread."""

    def __init__(self) -> None:
        self.passes: dict[str, int] = {}

    def __call__(self, x: torch.Tensor) -> None:
        name = threading.current_thread().name.partition("_")[0]
        if name in ("scorer", "inspect"):
            self.passes[name] = self.passes.get(name, 0) + 1
            time.sleep(PAUSE)


def answers(folder: Path, most: int) -> tuple[pb.ScoreResponse, pb.InspectResponse]:
    """What a server says whose scoring passes hold so many tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "PASS", {True: most, False: most})
        with faulty(folder) as server:
            before = server.runtime.scorer.passes()
            found = score(server), inspect(server)
            assert server.runtime.scorer.passes() - before == -(-(len(TEXT) + 1) // most)
    return found


def test_the_answer_is_that_of_one_pass(tmp_path: Path) -> None:
    (found, inspected), (expected, whole) = (
        answers(tmp_path / "cut", CHUNK),
        answers(tmp_path / "whole", 2048),
    )
    same = [(t.position, t.token_id, t.text, t.phase) for t in expected.tokens]
    assert [(t.position, t.token_id, t.text, t.phase) for t in found.tokens] == same
    for mine, theirs in zip(found.tokens, expected.tokens, strict=True):
        values = {reading.feature: reading.value for reading in theirs.readings}
        assert {r.feature: r.value for r in mine.readings} == pytest.approx(values, rel=1e-4, abs=1e-5)
    assert found.verdict.status == pb.CHECK_STATUS_CHECKED
    assert found.verdict.coverage == expected.verdict.coverage
    assert [(d.policy, d.rule, d.position) for d in found.verdict.detections] == [
        (d.policy, d.rule, d.position) for d in expected.verdict.detections
    ]
    assert found.verdict.detections
    scores = [(s.policy, s.rule, s.phase) for s in expected.verdict.scores]
    assert [(s.policy, s.rule, s.phase) for s in found.verdict.scores] == scores
    assert [s.score for s in found.verdict.scores] == pytest.approx(
        [s.score for s in expected.verdict.scores]
    )
    for mine, theirs in zip(inspected.tokens, whole.tokens, strict=True):
        assert [f.feature for f in mine.features] == [f.feature for f in theirs.features]


@pytest.mark.parametrize(("work", "name"), [(score, "scorer"), (inspect, "inspect")])
def test_others_are_served_meanwhile_and_nobody_thinks_that_it_hangs(cut: Faulty, work, name: str) -> None:
    slow = Slow()
    with before_layer(cut, slow), ThreadPoolExecutor() as threads:
        begun = time.monotonic()
        long = threads.submit(work, cut)
        wait_for(lambda: slow.passes.get(name, 0) >= 1)
        assert cut.generate(SILENT, max_new_tokens=2).finish_reason == pb.FINISH_REASON_LENGTH
        assert not long.done()
        while not long.done():
            assert cut.health() == SERVING
            time.sleep(0.1)
        assert time.monotonic() - begun > cut.server._settings.stall_seconds
        assert long.result().tokens
        assert slow.passes[name] == PASSES


@pytest.mark.parametrize(("work", "name"), [(score, "scorer"), (inspect, "inspect")])
def test_it_ends_with_its_caller(cut: Faulty, work, name: str) -> None:
    slow = Slow()
    with before_layer(cut, slow):
        with fails("DEADLINE_EXCEEDED"):
            work(cut, timeout=1.5 * PAUSE)
        time.sleep(3 * PAUSE)
        assert slow.passes[name] <= 3
    wait_for(lambda: cut.runtime.scorer.running() == cut.runtime.scorer.queue_depth() == 0)
    assert score(cut).verdict.status == pb.CHECK_STATUS_CHECKED
