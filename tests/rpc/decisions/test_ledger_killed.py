"""kill -9 of a server under load: every verdict that a client has seen is on record."""

import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import pytest

from monitor.telemetry.decisions.reader import read, verify
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.children import ending
from tests.rpc.conftest import DEADLINE, connected, generation
from tests.waiting import wait_for

ROOT = Path(__file__).parents[3]
SERVER = """
import sys
from monitor.rpc.server import Server, run_in_foreground
from tests.rpc.conftest import settings
from tests.rpc.fake import FakeRuntime, policies
chosen = policies()
server = Server(settings(decision_log=sys.argv[1], decision_log_file_bytes=20000), FakeRuntime(chosen.watch), chosen)
run_in_foreground(server, 1.0, lambda addresses: print("at", addresses.grpc, flush=True))
"""


def ask_until_it_dies(address, streams, seen):
    """Ask for verdicts, by streams or by unary calls, and note the request of each that came."""
    with connected(address) as channel:
        stub = MonitorServiceStub(channel)
        try:
            while True:
                if streams:
                    request = pb.GenerateStreamRequest(generation=generation("lie", max_new_tokens=3))
                    seen += [
                        e.request_id
                        for e in stub.GenerateStream(request, timeout=DEADLINE)
                        if e.HasField("final")
                    ]
                else:
                    answer = stub.Score(pb.ScoreRequest(input=pb.Input(text="lie")), timeout=DEADLINE)
                    seen.append(answer.request_id)
        except grpc.RpcError:
            return


@pytest.mark.slow
def test_a_killed_server_has_logged_every_verdict_that_was_seen(tmp_path):
    chance, seen = random.Random(7), []
    for _ in range(3):
        command = [sys.executable, "-c", SERVER, str(tmp_path)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with ending(subprocess.Popen(command, text=True, cwd=ROOT, **pipes)) as server:
            address = next(line for line in server.stdout if line.startswith("at ")).split()[1]
            callers = [
                threading.Thread(target=ask_until_it_dies, args=(address, number % 2, seen))
                for number in range(6)
            ]
            before = len(seen)
            for caller in callers:
                caller.start()
            wait_for(lambda: len(seen) >= before + 5)  # noqa: B023
            time.sleep(chance.random() * 0.5)
            server.send_signal(signal.SIGKILL)
            for caller in callers:
                caller.join(DEADLINE)
    logged = [content["request_id"] for content in read(tmp_path)]
    assert len(seen) > 30
    assert set(seen) <= set(logged)
    assert len(logged) == len(set(logged))
    assert all("does not match" not in fault for fault in verify(tmp_path).faults)
