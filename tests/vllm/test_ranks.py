"""The processes of other ranks, which here compute nothing: what they are told, how they end, and who finds it out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from monitor.vllm import ranks as module
from monitor.vllm.ranks import RankCall, RankFailed, Ranks
from tests.children import ending
from tests.waiting import wait_for

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

ECHO = """
import os, sys, time
from multiprocessing.connection import Connection
from monitor.vllm.ranks import received, send
line, rank = Connection(int(sys.argv[1])), int(sys.argv[2])
while True:
    call = received(line)
    if call.method == "end":
        break
    if call.method == "die":
        os._exit(7)
    if call.method == "hang":
        time.sleep(3600)
    if call.method == "babble":
        line.send_bytes(b"?")
    send(line, (call.method != "fail", (rank, call.method, call.args, os.environ.get("OWN"))))
"""


class Failures:
    """What was told of failures."""

    def __init__(self) -> None:
        self.seen: list[tuple[BaseException, bool]] = []

    def __call__(self, error: BaseException, stuck: bool) -> None:
        self.seen.append((error, stuck))


@contextmanager
def echoing(count: int = 3) -> Iterator[tuple[Ranks, Failures]]:
    failures = Failures()
    made = Ranks(count, failures, command=("-c", ECHO), settings={"OWN": "5"})
    try:
        yield made, failures
    finally:
        made.end()


def alive(pid: int) -> bool:
    """False for one that has ended, also where nobody has waited for it."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def test_all_ranks_do_what_they_are_told_and_answer_in_order():
    with echoing() as (ranks, failures):
        for n in range(3):
            mine, others = ranks.run(RankCall("work", (n,)), lambda n=n: f"own {n}", 60)
            assert mine == f"own {n}"
            assert others == [(1, "work", (n,), "5"), (2, "work", (n,), "5")]
        pids = ranks.processes
        assert len(pids) == 2
    assert not any(alive(pid) for pid in pids)
    assert not failures.seen


@pytest.mark.parametrize(
    ("method", "why"), [("die", r"has ended \(exit status 7\)"), ("fail", "rank . failed")]
)
def test_a_rank_that_dies_or_fails_ends_all(method, why):
    with echoing() as (ranks, failures):
        with pytest.raises(RankFailed, match=why):
            ranks.run(RankCall(method), lambda: None, 60)
        wait_for(lambda: failures.seen and not any(map(alive, ranks.processes)))
        assert [stuck for _, stuck in failures.seen] == [False]
        with pytest.raises(RankFailed, match=why):
            ranks.run(RankCall("work"), lambda: pytest.fail("nothing may run any more"), 60)


def test_a_rank_that_dies_between_calls_is_noticed():
    with echoing() as (ranks, failures):
        ranks.run(RankCall("work"), lambda: None, 60)
        os.kill(ranks.processes[1], signal.SIGKILL)
        wait_for(lambda: failures.seen)
        assert "rank 2 has ended (exit status -9)" in str(failures.seen[0][0])


def test_a_rank_that_is_stopped_is_ended_once_the_time_is_over():
    with echoing() as (ranks, failures):
        ranks.run(RankCall("work"), lambda: None, 60)
        os.kill(ranks.processes[0], signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(RankFailed, match="rank 1 did not answer in time"):
            ranks.run(RankCall("work"), lambda: None, 1.0)
        assert time.monotonic() - began > 0.5
        wait_for(lambda: failures.seen and not any(map(alive, ranks.processes)))


def test_a_first_rank_that_waits_for_a_sum_is_told_of(monkeypatch):
    """Its thread never comes back; whoever has requests hears of it from another."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.3)
    never, raised = threading.Event(), []

    def call():
        try:
            ranks.run(RankCall("hang"), never.wait, 0.5)
        except RankFailed as error:
            raised.append(error)

    with echoing() as (ranks, failures):
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        wait_for(lambda: failures.seen)
        ((error, stuck),) = failures.seen
        assert stuck
        assert "rank 1, 2 did not answer" in str(error)
        assert thread.is_alive()
        never.set()
        thread.join(30)
        assert raised, "one that comes back late must not go on"


def test_a_first_rank_that_was_suspended_has_not_waited(monkeypatch):
    real, later = time.monotonic, [0.0]
    clock = SimpleNamespace(monotonic=lambda: real() + later[0])
    monkeypatch.setattr(module, "time", clock)

    def own():
        later[0] = 1e6
        threading.Event().wait(4 * module._POLL_SECONDS)
        return "done"

    with echoing() as (ranks, failures):
        assert ranks.run(RankCall("work"), own, 30)[0] == "done"
        assert not failures.seen


def test_an_error_of_the_first_rank_is_its_own():
    with echoing() as (ranks, failures):
        with pytest.raises(ZeroDivisionError):
            ranks.run(RankCall("work"), lambda: 1 / 0, 60)
        assert not failures.seen


def test_what_differs_ends_all():
    with echoing() as (ranks, failures):
        with pytest.raises(RankFailed, match="rank 1 edited others"):
            ranks.fail("rank 1 edited others")
        wait_for(lambda: failures.seen and not any(map(alive, ranks.processes)))


PARENT = """
import sys, time
from monitor.vllm.ranks import Ranks
print(*Ranks(3, print).processes, flush=True)
time.sleep(600)
"""


def test_ranks_do_not_outlive_the_first_however_it_ends():
    command = [sys.executable, "-c", PARENT]
    with ending(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        # Signals that come to all of them are the first one's to answer.
        wait_for(lambda: all(ignores(pid, signal.SIGINT) and ignores(pid, signal.SIGTERM) for pid in pids))
        os.kill(pids[0], signal.SIGTERM)
        os.kill(pids[0], signal.SIGINT)
        assert all(map(alive, pids))
        parent.kill()
        wait_for(lambda: not any(map(alive, pids)))


def ignores(pid: int, number: int) -> bool:
    """True where a process ignores a signal."""
    found = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigIgn" in line]
    return bool(int(found[0].split()[1], 16) >> (number - 1) & 1)
