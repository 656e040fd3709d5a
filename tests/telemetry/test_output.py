"""Standard streams that nobody reads, or somebody reads slowly: nothing waits for them, and what is lost is counted."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager, suppress

import grpc
import pytest

from monitor.telemetry.output import Outlet
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.children import ending
from tests.rpc.conftest import connected, scrape
from tests.waiting import wait_for

DEADLINE = 30.0


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    yield reading, writing
    for end in (reading, writing):
        os.close(end)


def read_all(end, wanted):
    """Everything that comes until `wanted` lines have come."""
    found = b""
    while found.count(b"\n") < wanted:
        found += os.read(end, 1 << 16)
    return found.splitlines()


def test_lines_arrive_in_order_and_none_is_lost_while_somebody_reads(pipe):
    reading, writing = pipe
    lost = []
    outlet = Outlet(writing, lost.append, 1 << 30)
    for number in range(20_000):
        outlet.write(b"line %d\n" % number)
    assert read_all(reading, 20_000) == [b"line %d" % number for number in range(20_000)]
    assert (outlet.lost, lost) == (0, [])
    outlet.close(DEADLINE)


def test_what_nobody_reads_is_dropped_and_counted_and_said_once_it_flows_again(pipe):
    reading, writing = pipe
    said, before = [], filled(writing)
    outlet = Outlet(writing, said.append, 10_000)
    writers = [
        threading.Thread(target=lambda: [outlet.write(b"x" * 99 + b"\n") for _ in range(1000)])
        for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(DEADLINE)
        assert not writer.is_alive(), "a writer waited for a reader"
    assert outlet.lost > 2000
    assert not outlet.flush(0.1)
    got = read_all(reading, before + 4000 - outlet.lost)
    wait_for(lambda: said)
    assert sum(said) == outlet.lost == before + 4000 - len(got)
    outlet.write(b"again\n")
    assert read_all(reading, 1) == [b"again"]
    outlet.close(DEADLINE)


def test_a_reader_who_is_gone_costs_lines_and_nothing_else(pipe):
    reading, writing = pipe
    gone = os.dup(writing)
    outlet = Outlet(gone, lambda _: None, 1 << 20)
    with open("/dev/full", "wb", buffering=0) as full:
        os.dup2(full.fileno(), gone)
    outlet.write(b"lost\n")
    wait_for(lambda: outlet.lost == 1)
    os.dup2(writing, gone)
    outlet.write(b"found\n")
    assert read_all(reading, 1) == [b"found"]
    outlet.close(DEADLINE)
    outlet.write(b"too late\n")
    assert outlet.lost == 2
    os.close(gone)


def filled(end):
    """Fill a pipe; the number of lines that it took."""
    taken = 0
    with suppress(BlockingIOError):
        while os.write(end, b"x" * 1023 + b"\n"):
            taken += 1
    return taken


TALK = """
import os, sys, threading
from monitor.telemetry.output import lost_lines, take_over_output

take_over_output(lambda stream, lines: None)
{talk}
os.write(int(sys.argv[1]), b"done %d\\n" % lost_lines())
"""
WAYS = {
    "print": 'for _ in range(60_000): print("x" * 99)',
    "errors": 'for _ in range(60_000): print("x" * 99, file=sys.stderr)',
    "threads": """
import traceback
def fail(): raise ValueError("y" * 4000)
for _ in range(2_000): (thread := threading.Thread(target=fail)).start(), thread.join()
""",
    "c": """
for descriptor in (1, 2):
    for _ in range(2_000):
        try: os.write(descriptor, b"x" * 99 + b"\\n")
        except BlockingIOError: pass
""",
    "unfinished": 'for _ in range(60_000): sys.stdout.write("x" * 99); sys.stdout.flush()',
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_process_whose_output_nobody_reads_goes_on_and_ends(way, kind, tmp_path):
    """Whether Python writes, a dying thread, or a C library past Python; to a pipe, or to systemd's socket."""
    reading, writing = os.pipe()
    (tmp_path / "talk.py").write_text(TALK.format(talk=textwrap.dedent(WAYS[way])))
    ours, theirs = unread(kind)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "talk.py"), str(writing)],
        stdout=theirs,
        stderr=theirs,
        pass_fds=[writing],
        text=True,
    )
    os.close(writing)
    with ending(process), os.fdopen(reading) as told, ours, theirs:
        word, lost = told.readline().split()
        assert word == "done"
        assert process.wait(DEADLINE) == 0
        assert (int(lost) > 0) == (way != "c")


def unread(kind):
    """The two ends of a pipe or a socket that nobody will read."""
    if kind == "pipe":
        reading, writing = os.pipe()
        return os.fdopen(reading), os.fdopen(writing, "w")
    import socket

    ours, theirs = socket.socketpair()
    return ours, theirs


def test_output_that_is_read_is_complete_and_ends_with_the_process(tmp_path):
    (tmp_path / "talk.py").write_text(
        TALK.format(
            talk='for n in range(5000): print(n); print("e", n, file=sys.stderr)\nprint("end", end="")'
        )
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "talk.py"), "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    out = done.stdout.replace("done 0\n", "").splitlines()
    assert out == [*map(str, range(5000)), "end"]
    assert done.stderr.splitlines() == [f"e {n}" for n in range(5000)]


@contextmanager
def talking(way, *flags):
    """`sae-monitor serve` over a fake runtime, in a process of its own, with pipes for its output."""
    command = [sys.executable, "-m", "tests.rpc.talking", way, *flags]
    command += ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with ending(process):
        serving = next(line for line in process.stderr if '"serving"' in line)
        yield process, json.loads(serving)


def refused(stub, times):
    """Calls that fail, each of which is worth a line."""
    for _ in range(times):
        with pytest.raises(grpc.RpcError) as error:
            stub.Score(pb.ScoreRequest(input=pb.Input(text="")), timeout=DEADLINE)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


LOST = "sae_monitor_log_lines_lost_total", frozenset()


@pytest.mark.slow
def test_a_server_whose_log_nobody_reads_serves_says_what_it_lost_and_stops():
    with talking("serve") as (process, addresses), connected(addresses["grpc"]) as channel:
        stub = MonitorServiceStub(channel)
        refused(stub, 1000)
        lost = scrape(addresses["metrics"])[LOST]
        assert lost > 100
        lines = iter(process.stderr.readline, "")
        seen = [json.loads(line) for line in until(lines, "lines of output were lost")]
        told = seen.pop()
        assert (told["stream"], told["lines"]) == ("stderr", lost)
        assert sum(line["event"] == "call failed" for line in seen) == 1000 - lost
        refused(stub, 1000)
        assert scrape(addresses["metrics"])[LOST] > lost
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0


def until(lines, word):
    """The lines up to the first with this word, that one included."""
    for line in lines:
        yield line
        if word in line:
            return
