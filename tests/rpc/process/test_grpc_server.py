"""The server's own core: bytes that would end grpcio's do not end it, and unknown methods are answered."""

import asyncio
import itertools
import logging
import re
import socket
import struct
import threading
import time
from pathlib import Path

import grpc
import pytest
from grpc._cython import cygrpc

import monitor
from monitor.client.channel import await_end_of_watch
from monitor.rpc.process.grpc_server import server_options
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc import http2
from tests.rpc.conftest import DEADLINE, fails, serving, settings
from tests.rpc.secured import PLAIN
from tests.waiting import wait_for


def call_with(path):
    """A whole call whose path is these bytes."""
    block = http2.headers("/monitor.v1.MonitorService/Score")
    known = b"\x20/monitor.v1.MonitorService/Score"
    assert known in block
    block = block.replace(known, bytes([len(path)]) + path)
    return http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block) + http2.frame(
        http2.DATA, http2.END_STREAM, 1, http2.message(b"")
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", [b"/\xff", b"\xe5", b"/monitor.v1.MonitorService/Sc\xf6re", b"/a/\xed\xa0\x80", b"/"]
)
def test_a_path_that_is_not_text_ends_nothing(path):
    with serving() as served:
        for _ in range(3):
            hello = http2.PREFACE + http2.settings()
            with http2.opened(served.addresses.grpc, hello, call_with(path)) as connection:
                time.sleep(0.05)
                assert connection.recv(1 << 16)
        assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED
        with grpc.insecure_channel(served.addresses.grpc, PLAIN) as channel:
            grpc.channel_ready_future(channel).result(timeout=10)
            await_end_of_watch(channel)


@pytest.mark.parametrize(
    "path", ["/monitor.v1.MonitorService/Nothing", "/some.other.Service/Score", "/", "/a/b/c"]
)
def test_unknown_methods_are_unimplemented(path):
    with serving() as served:
        for make in (served.channel.unary_unary, served.channel.unary_stream):
            with fails("UNIMPLEMENTED"):
                answer = make(path)(b"", timeout=DEADLINE)
                list(answer)
        assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED


def test_a_flood_of_unknown_methods_leaves_nothing_behind():
    with serving() as served:

        async def flood():
            async with grpc.aio.insecure_channel(served.addresses.grpc, PLAIN) as channel:
                calls = [channel.unary_unary("/a/b")(b"", timeout=DEADLINE) for _ in range(500)]
                return [await call.code() for call in calls]

        codes = asyncio.run(flood())
        assert set(codes) == {grpc.StatusCode.UNIMPLEMENTED}
        assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED


def test_callers_who_do_not_wait_for_the_answer_end_nothing_and_are_not_worth_a_line(caplog):
    block = http2.headers("/a/b")
    reset = (8).to_bytes(4, "big")
    with serving() as served:
        for _ in range(50):
            calls = []
            for stream in range(1, 81, 2):
                calls.append(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block))
                calls.append(http2.frame(http2.RST_STREAM, 0, stream, reset))
            with http2.opened(served.addresses.grpc, http2.PREFACE + http2.settings(), *calls) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wait_for(lambda: unknown_is_answered(served.addresses.grpc))
        assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.slow
def test_a_caller_who_takes_no_answers_keeps_nobody_else_waiting():
    with serving() as served, socket.socket() as silent:
        host, _, port = served.addresses.grpc.rpartition(":")
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        silent.connect((host, int(port)))
        silent.settimeout(1.0)
        silent.sendall(http2.PREFACE + http2.settings(window=0))
        with pytest.raises(TimeoutError):
            call_without_end(silent)
        for _ in range(3):
            assert unknown_is_answered(served.addresses.grpc)
        assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED


def call_without_end(connection):
    """Unknown methods, until the server cannot get rid of its answers and reads no more: TimeoutError."""
    block, flags = http2.headers("/a/b"), http2.END_HEADERS | http2.END_STREAM
    for first in itertools.count(1, 2000):
        streams = range(first, first + 2000, 2)
        connection.sendall(b"".join(http2.frame(http2.HEADERS, flags, n, block) for n in streams))


def unknown_is_answered(address):
    with grpc.insecure_channel(address, PLAIN) as channel:
        try:
            channel.unary_unary("/x/y")(b"", timeout=5)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED


def written_options():
    """The names of all channel options in the code that ships, beside those that a server really passes."""
    package = Path(monitor.__file__).parent
    paths = [*package.rglob("*.py"), package.parent / "deploy" / "healthcheck.py"]
    sources = [path.read_text() for path in paths if path.exists()]
    written = {name for source in sources for name in re.findall(r'\("(grpc\.[\w.]+)",', source)}
    return written | {name for name, _ in server_options(settings())}


def test_every_channel_option_exists_in_the_installed_library():
    """The library takes any name without a word; those it knows stand in it as text that ends with a zero byte."""
    library = Path(cygrpc.__file__).read_bytes()
    names = written_options()
    assert len(names) > 15
    assert [name for name in sorted(names) if name.encode() + b"\0" not in library] == []
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms\0" not in library


def pinging(address, seconds):
    """An ordinary client that sends keepalives, whether it has calls or not."""
    options = [
        ("grpc.keepalive_time_ms", round(seconds * 1000)),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    return grpc.insecure_channel(address, [*PLAIN, *options])


class Connection:
    """Notes whether the one connection of a channel was lost, until its `with` block ends."""

    def __init__(self, channel):
        self.lost = threading.Event()
        self._ready = threading.Event()
        self._channel = channel
        channel.subscribe(self._note, try_to_connect=True)

    def __enter__(self):
        assert self._ready.wait(DEADLINE)
        return self

    def __exit__(self, *error):
        self._channel.unsubscribe(self._note)
        await_end_of_watch(self._channel)

    def _note(self, state):
        if state is grpc.ChannelConnectivity.READY:
            self._ready.set()
        elif self._ready.is_set():
            self.lost.set()


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1, 20])
@pytest.mark.parametrize(("shortest", "cut"), [(0.1, False), (60.0, True)])
def test_ordinary_keepalives_are_allowed_and_more_frequent_ones_are_not(calls, shortest, cut):
    """The client pings every 0.3 s; where the server allows one a minute, the same client is cut off."""
    with serving(min_ping_seconds=shortest) as served, pinging(served.addresses.grpc, 0.3) as channel:
        served.runtime.scorer.gate.clear()
        stub, request = MonitorServiceStub(channel), pb.ScoreRequest(input=pb.Input(text="hold"))
        with Connection(channel) as connection:
            held = [stub.Score.future(request, timeout=DEADLINE) for _ in range(calls)]
            wait_for(lambda: len(served.runtime.scorer.submitted) == calls)
            assert connection.lost.wait(10.0 if cut else 2.5) == cut
        served.runtime.scorer.gate.set()
        assert {call.code().name for call in held} == ({"UNAVAILABLE" if cut else "OK"} if calls else set())


def test_the_shortest_keepalive_of_any_client_library_is_allowed():
    """Clients in Go send keepalives every ten seconds at the most; a ping may come early by a delay on its way."""
    assert dict(server_options(settings()))["grpc.http2.min_ping_interval_without_data_ms"] <= 5000
