"""Signals at every stage of a server's life, also where it is the first process of its container."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.children import ending
from tests.rpc.conftest import DEADLINE, connected, generation
from tests.telemetry.test_output import talking
from tests.waiting import wait_for

PORTS = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
SERVE = [sys.executable, "-m", "monitor", "serve", "--pair=tiny", *PORTS]
GUARD = [*SERVE[:3], "guard", "--upstream=http://127.0.0.1:1", "--http-listen=127.0.0.1:0", *SERVE[4:]]
LOADING = [sys.executable, "-m", "tests.rpc.talking", "load"]
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]
"""Runs a command as the first process of a namespace, as a container does."""
SOON = 10.0
"""Seconds; a model takes minutes to load."""


def can_make_a_namespace():
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*CONTAINER, "true"], capture_output=True, check=False).returncode == 0


@contextmanager
def started(command, first):
    """The command with its process id; as the first process of a namespace where asked for."""
    if first and not can_make_a_namespace():
        pytest.skip("no right to make a namespace of processes")
    process = subprocess.Popen(
        [*CONTAINER, *command] if first else command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with ending(process):
        yield process, child(process.pid) if first else process.pid


def child(pid):
    """The process that another one has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: children.read_text().split())
    return int(children.read_text().split()[0])


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def has_loaded(pid, library):
    return library in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("command", [SERVE, GUARD], ids=["serve", "guard"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_instant(number, first, command):
    """The handler is there before anything large is imported, and works at once."""
    with started(command, first) as (process, pid):
        wait_for(lambda: catches(pid, signal.SIGTERM))
        assert not has_loaded(pid, "libtorch")
        os.kill(pid, number)
        assert process.wait(SOON) == 0


@pytest.mark.slow
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_while_it_loads(number, first):
    """The main thread is deep inside a library and does not come back; what was logged is written nevertheless."""
    with started(LOADING, first) as (process, pid):
        assert "loading begins" in process.stderr.readline()
        os.kill(pid, signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None, "there is nothing to load again yet"
        os.kill(pid, number)
        assert process.wait(SOON) == 0


@pytest.mark.slow
def test_while_real_libraries_are_imported():
    """At any time of the import, which holds the interpreter for long stretches."""
    for delay in (0.3, 0.8, 1.6):
        with started(SERVE, first=False) as (process, pid):
            time.sleep(delay)
            os.kill(pid, signal.SIGTERM)
            assert process.wait(SOON) == 0


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2, 3])
def test_while_it_serves(times):
    """The first lets calls finish, the second ends them, and the third ends the process whatever it waits for."""
    with talking("serve", "--grace-seconds=3600") as (process, addresses):
        if times == 1:
            process.send_signal(signal.SIGTERM)
            assert process.wait(SOON) == 0
            return
        with connected(addresses["grpc"]) as channel:
            endless = generation("one two", max_new_tokens=10_000_000)
            call = MonitorServiceStub(channel).GenerateStream(
                pb.GenerateStreamRequest(generation=endless), timeout=DEADLINE
            )
            next(call)
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
            assert process.poll() is None, "a call runs"
            for _ in range(times - 1):
                process.send_signal(signal.SIGINT)
            assert process.wait(SOON) == 0


@pytest.mark.slow
def test_another_command_as_the_first_process_ends_too():
    command = [sys.executable, "-m", "monitor", "decisions", "watch", "--connect=127.0.0.1:1"]
    with started(command, first=True) as (process, pid):
        wait_for(lambda: catches(pid, signal.SIGTERM) or process.poll() is not None)
        os.kill(pid, signal.SIGTERM)
        assert process.wait(SOON) == 128 + signal.SIGTERM
