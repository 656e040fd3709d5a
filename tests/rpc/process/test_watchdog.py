"""Work that stands still: what counts as that, and what the server and its process do then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import torch

from monitor.rpc.process.watchdog import StallDetector
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.children import ending
from tests.rpc.conftest import DEADLINE, connected, fails, generation
from tests.rpc.faulty import NOT_SERVING, SERVING, faulty
from tests.rpc.pairs import SILENT, small_scene
from tests.rpc.striking import (
    LONG,
    SOUND,
    before_layer,
    delivered_before,
    long_stream,
    striking,
    until_it_fails,
    whole,
)
from tests.waiting import wait_for


@dataclass
class Numbers:
    """A queue as it looks from outside."""

    waits: int = 0
    runs: int = 0
    ended: int = 0

    def queue_depth(self) -> int:
        return self.waits

    def running(self) -> int:
        return self.runs

    def passes(self) -> int:
        return self.ended


class Looking:
    """Looks once a second, on a clock of its own."""

    def __init__(self, limit: float, **queues: Numbers) -> None:
        self.now = 100.0
        self.stalls = StallDetector(queues, limit, lambda: self.now)

    def found(self, seconds: int, every: float = 1.0) -> bool:
        looks = []
        for _ in range(seconds):
            self.now += every
            looks.append(self.stalls.check())
        return looks[-1]


class TestWhatStandsStill:
    def test_work_without_a_pass_for_the_limit(self) -> None:
        looking = Looking(10, generate=Numbers(), score=Numbers(runs=1))
        assert not looking.found(10), "the first look only learns how many passes there were"
        assert looking.found(1)

    def test_work_that_waits_counts_too(self) -> None:
        assert Looking(10, generate=Numbers(waits=1)).found(11)

    def test_a_pass_begins_it_anew(self) -> None:
        queue = Numbers(runs=1)
        looking = Looking(10, generate=queue)
        for _ in range(5):
            queue.ended += 1
            assert not looking.found(9)

    def test_one_that_works_does_not_hide_one_that_does_not(self) -> None:
        busy, hung = Numbers(runs=1), Numbers(runs=1)
        looking = Looking(10, generate=busy, score=hung)
        found = []
        for _ in range(12):
            busy.ended += 1
            found.append(looking.found(1))
        assert found[-1]

    def test_nothing_to_do_is_no_stall(self) -> None:
        queue = Numbers()
        looking = Looking(10, generate=queue)
        assert not looking.found(100)
        queue.runs = 1
        assert not looking.found(9), "the idle time does not count"

    def test_the_whole_machine_standing_still_is_nobodys_fault(self) -> None:
        looking = Looking(100, generate=Numbers(runs=1))
        assert not looking.found(2, every=10_000)

    def test_zero_never_finds_one(self) -> None:
        assert not Looking(0, generate=Numbers(runs=1)).found(1000)


class TestAPassThatHangs:
    @pytest.mark.slow
    def test_everybody_is_told_and_the_process_must_go(self, tmp_path: Path) -> None:
        over = threading.Event()

        def hang(_: torch.Tensor) -> None:
            assert over.wait(DEADLINE)

        with faulty(tmp_path, blocks=False, stall_seconds=1.0) as server:
            expected = whole(server)
            try:
                with striking(server, hang):
                    seen = until_it_fails(long_stream(server), "UNAVAILABLE")
                delivered_before(seen, expected, SOUND)
                wait_for(lambda: server.health() == NOT_SERVING)
                assert server.metric("serving") == 0
                assert server.server._health.dead.is_set(), "what `serve` waits for, to exit"
            finally:
                over.set()

    @pytest.mark.slow
    def test_a_scoring_pass_counts_as_much(self, tmp_path: Path) -> None:
        over = threading.Event()

        def hang(_: torch.Tensor) -> None:
            assert over.wait(DEADLINE)

        with faulty(tmp_path, stall_seconds=1.0) as server:
            try:
                with before_layer(server, hang), fails("UNAVAILABLE"):
                    server.score(SILENT)
                assert server.server._health.dead.is_set()
            finally:
                over.set()

    @pytest.mark.slow
    def test_slow_passes_are_none(self, tmp_path: Path) -> None:
        with faulty(tmp_path, blocks=False, stall_seconds=3.0) as server:
            with before_layer(server, lambda _: time.sleep(0.25)):
                assert len(server.generate(SILENT, max_new_tokens=16).text) > 0
            assert server.health() == SERVING
            assert not server.server._health.dead.is_set()

    @pytest.mark.slow
    @pytest.mark.parametrize("hung", ["generating", "scoring"])
    def test_the_process_ends_although_its_thread_does_not(self, hung: str, tmp_path: Path) -> None:
        with hanging(tmp_path, stall_seconds=2) as (process, stub):
            with fails("UNAVAILABLE"):
                ask(stub, hung)
            _, said = process.communicate(timeout=120)
        assert process.returncode == 3
        assert "no forward pass ends" in said
        assert "the engine died" in said
        assert SILENT not in said

    @pytest.mark.slow
    def test_it_ends_when_it_is_told_to_as_well(self, tmp_path: Path) -> None:
        with hanging(tmp_path, stall_seconds=0) as (process, stub):
            call = stub.Generate.future(
                pb.GenerateRequest(generation=generation(SILENT, max_new_tokens=LONG)), timeout=DEADLINE
            )
            ended_when_told(process, call)

    @pytest.mark.slow
    def test_so_it_does_while_a_reload_hangs(self, tmp_path: Path) -> None:
        with hanging(tmp_path, stall_seconds=0) as (process, stub):
            call = stub.ReloadPolicies.future(pb.ReloadPoliciesRequest(), timeout=DEADLINE)
            ended_when_told(process, call)


def ended_when_told(process: subprocess.Popen[str], call: grpc.Future) -> None:
    """SIGTERM once the call hangs: its caller gets an error, the process its exit code."""
    assert process.stderr is not None
    assert any("hanging" in line for line in process.stderr)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert call.exception() is not None
    assert process.returncode == 3


@contextmanager
def hanging(folder: Path, stall_seconds: float) -> Iterator[tuple[subprocess.Popen[str], MonitorServiceStub]]:
    """A server in a process of its own whose first pass for a caller, and reloads, never end."""
    scene = small_scene(folder)
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in scene.flags.items()]
    command = [sys.executable, "-m", "tests.rpc.hanging", *flags, "--grace-seconds=1"]
    told = os.environ | {"SAE_MONITOR_STALL_SECONDS": f"{stall_seconds}"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=told
    )
    with ending(process):
        assert process.stderr is not None
        address = next(match[1] for line in process.stderr if (match := re.search(r"^  grpc +(\S+)", line)))
        with connected(address) as channel:
            yield process, MonitorServiceStub(channel)


def ask(stub: MonitorServiceStub, hung: str) -> None:
    if hung == "scoring":
        stub.Score(pb.ScoreRequest(input=pb.Input(text=SILENT)), timeout=DEADLINE)
    else:
        asked = generation(SILENT, max_new_tokens=LONG)
        stub.Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE)
