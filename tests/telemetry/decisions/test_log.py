"""The log as a server uses it: group commit, and what happens when the disk fails."""

import contextlib
import threading
import time

import pytest
import structlog

from monitor.errors import Unavailable
from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.reader import follow, read, verify
from monitor.telemetry.logs import configure
from tests.telemetry.decisions.logs import BadDisk, Meter, log
from tests.waiting import wait_for

WAIT = 60


def made(name):
    return lambda: {"kind": "decision", "id": name}


def test_a_record_is_on_disk_when_it_is_answered(tmp_path):
    decisions = log(tmp_path)
    assert decisions.append(made("a")).result(WAIT) == 1
    assert [content["id"] for content in read(tmp_path)] == ["a"]
    assert decisions.last == 1
    decisions.close()


def test_records_that_wait_together_share_a_sync(tmp_path):
    disk, meter = BadDisk(), Meter()
    disk.hold = threading.Event()
    decisions = log(tmp_path, disk=disk, meter=meter)
    first = decisions.append(made("first"))
    wait_for(lambda: meter.queued() == 0)
    rest = [decisions.append(made(str(index))) for index in range(100)]
    assert meter.queued() == 100
    assert not first.done()
    disk.hold.set()
    assert sorted(f.result(WAIT) for f in [first, *rest]) == list(range(1, 102))
    assert (meter.records, meter.commits) == (101, 2)
    decisions.close()


def test_many_threads_at_once(tmp_path):
    decisions = log(tmp_path)
    seen = []

    def work(name):
        for index in range(50):
            seen.append((decisions.append(made(f"{name}-{index}")).result(WAIT), f"{name}-{index}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    decisions.close()
    assert {(c["seq"], c["id"]) for c in read(tmp_path)} == set(seen)
    assert verify(tmp_path).records == 400


def test_close_writes_what_waits(tmp_path):
    decisions = log(tmp_path)
    futures = [decisions.append(made(str(index))) for index in range(200)]
    decisions.close()
    assert all(future.done() for future in futures)
    assert verify(tmp_path).records == 200
    with pytest.raises(Unavailable):
        decisions.append(made("late")).result(WAIT)


@pytest.mark.slow
def test_a_full_disk_refuses_until_there_is_room(tmp_path):
    disk, meter = BadDisk(), Meter()
    decisions = log(tmp_path, disk=disk, meter=meter)
    decisions.append(made("before")).result(WAIT)
    disk.room = 10
    with pytest.raises(Unavailable, match="could not be logged"):
        decisions.append(made("lost")).result(WAIT)
    assert not decisions.healthy()
    assert meter.drops == ["disk_full"]
    assert set(meter.errors) == {"disk_full"}
    disk.room = None
    wait_for(decisions.healthy)
    decisions.append(made("after")).result(WAIT)
    decisions.close()
    kinds = [(content["kind"], content.get("id"), content.get("lost")) for content in read(tmp_path)]
    assert kinds == [("decision", "before", None), ("gap", None, 1), ("decision", "after", None)]
    assert verify(tmp_path).faults == []


@pytest.mark.slow
def test_a_full_disk_drops_and_counts(tmp_path):
    disk, meter = BadDisk(), Meter()
    disk.room = 0
    decisions = log(tmp_path, "drop", disk=disk, meter=meter)
    assert [decisions.append(made("x")).result(WAIT) for _ in range(3)] == [0, 0, 0]
    assert decisions.healthy()
    assert meter.drops == ["disk_full"] * 3
    disk.room = None
    wait_for(lambda: list(read(tmp_path)))
    decisions.close()
    (gap,) = read(tmp_path)
    assert (gap["kind"], gap["lost"], gap["reason"]) == ("gap", 3, "No space left on device")


@pytest.mark.parametrize("on_full", ["refuse", "drop"])
def test_a_hung_disk_fills_the_queue_and_never_blocks_the_caller(tmp_path, on_full):
    disk, meter = BadDisk(), Meter()
    disk.hold = threading.Event()
    decisions = log(tmp_path, on_full, disk=disk, meter=meter, waiting=5)
    decisions.append(made("first"))
    wait_for(lambda: meter.queued() == 0)
    began = time.monotonic()
    futures = [decisions.append(made(str(index))) for index in range(8)]
    assert time.monotonic() - began < WAIT
    assert [future.done() for future in futures] == [False] * 5 + [True] * 3
    assert meter.drops == ["queue_full"] * 3
    if on_full == "refuse":
        assert isinstance(futures[-1].exception(), Unavailable)
    else:
        assert futures[-1].result() == 0
    disk.hold.set()
    assert [future.result(WAIT) for future in futures[:5]] == [2, 3, 4, 5, 6]
    decisions.close()


def test_a_record_that_cannot_be_made_harms_no_other(tmp_path):
    meter = Meter()
    decisions = log(tmp_path, meter=meter)
    bad = decisions.append(lambda: {"score": float("inf")})
    with pytest.raises(Unavailable):
        bad.result(WAIT)
    assert decisions.append(made("good")).result(WAIT) == 1
    assert meter.drops == ["error"]
    decisions.close()


def test_a_record_that_no_line_can_hold_is_refused_and_not_lost_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST", 1000)
    decisions, meter = log(tmp_path), Meter()
    decisions._meter = meter
    fits = decisions.append(lambda: {"text": "\x01" * ((1000 - 80) // 6)})
    with pytest.raises(Unavailable):
        decisions.append(lambda: {"text": "\x01" * (1000 // 6)}).result(WAIT)
    assert fits.result(WAIT) == 1
    assert decisions.append(made("after")).result(WAIT) == 2
    decisions.close()
    assert meter.drops == ["error"]
    assert (verify(tmp_path).records, verify(tmp_path).faults) == (2, [])


def test_following_sees_what_is_added_across_files(tmp_path):
    decisions = log(tmp_path)
    decisions.append(made("0")).result(WAIT)
    seen, over = [], threading.Event()

    def watch():
        for content in follow(tmp_path, 0, over.is_set):
            seen.append(content["seq"])

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    for index in range(1, 30):
        decisions.append(made(str(index))).result(WAIT)
    wait_for(lambda: len(seen) == 30)
    over.set()
    thread.join()
    decisions.close()
    assert seen == list(range(1, 31))


@pytest.mark.slow
def test_a_defect_in_writing_leaves_nobody_waiting(tmp_path, monkeypatch):
    decisions = log(tmp_path)
    monkeypatch.setattr(decisions._writer, "append", lambda records: 1 / 0)
    with pytest.raises(Unavailable):
        decisions.append(made("x")).result(WAIT)
    assert not decisions.healthy()
    monkeypatch.undo()
    wait_for(decisions.healthy)
    assert decisions.append(made("y")).result(WAIT) == 2
    decisions.close()


@pytest.mark.slow
def test_a_disk_without_room_for_the_servers_own_lines_either_leaves_nobody_waiting(tmp_path, monkeypatch):
    disk = BadDisk()
    decisions = log(tmp_path, disk=disk)
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr("sys.stderr", full)
        configure("info", "json")
        try:
            disk.room = 0
            with pytest.raises(Unavailable):
                decisions.append(made("lost")).result(WAIT)
            disk.room = None
            wait_for(decisions.healthy)
            decisions.append(made("after")).result(WAIT)
        finally:
            structlog.reset_defaults()
            decisions.close()
            with contextlib.suppress(OSError):
                full.close()
