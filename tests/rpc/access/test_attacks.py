"""An attacker's checklist below the level of calls: connections, frames, headers and streams.

Each test ends with somebody else's ordinary call, which must be served.
"""

import threading
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from monitor.rpc import health
from monitor.rpc.access.other_services import MOST_STREAMS
from monitor.rpc.access.roles import Role
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc import http2
from tests.rpc.conftest import DEADLINE, connected, fails, scrape, serving
from tests.rpc.secured import PLAIN, Callers, guarded, listed
from tests.waiting import wait_for

SCORE = "/monitor.v1.MonitorService/Score"
WATCH = "/grpc.health.v1.Health/Watch"


@pytest.fixture
def known(tmp_path):
    found = Callers(tmp_path / "callers")
    found.add("somebody", *Role)
    return found


def served_still(address, header=None):
    # A connection of its own: gRPC shares them between channels of a process.
    with grpc.insecure_channel(address, PLAIN) as channel:
        return listed(MonitorServiceStub(channel), header).policies


def test_oversized_messages(known):
    with guarded(callers=known.path, max_message_bytes=10_000) as server:
        with connected(server.addresses.grpc) as channel:
            request = pb.ScoreRequest(input=pb.Input(text="word " * 10_000))
            # Without a token the answer comes before the message is looked at.
            for header, code in ((known.header("somebody"), "RESOURCE_EXHAUSTED"), (None, "UNAUTHENTICATED")):
                with fails(code):
                    MonitorServiceStub(channel).Score(request, timeout=DEADLINE, metadata=header)
        assert served_still(server.addresses.grpc, known.header("somebody"))


@pytest.mark.slow
def test_half_open_connections_are_closed(known):
    """Slow loris: connect and say nothing, half a preface, or half of a frame."""
    openings = [b"", http2.PREFACE[:10], http2.PREFACE, http2.PREFACE + http2.settings()[:5]]
    with guarded(callers=known.path, handshake_seconds=1.0) as server, ExitStack() as stack:
        address = server.addresses.grpc
        open_ones = [stack.enter_context(http2.opened(address, part)) for part in openings * 10]
        assert served_still(address, known.header("somebody"))
        assert all(http2.closed_within(connection, DEADLINE) for connection in open_ones)


@pytest.mark.slow
def test_a_connection_that_stops_in_the_middle_of_headers_is_closed(known):
    half = http2.frame(http2.HEADERS, 0, 1, http2.headers(SCORE))
    limits = {"keepalive_seconds": 1.0, "idle_seconds": 2.0}
    with guarded(callers=known.path, **limits) as server:
        address = server.addresses.grpc
        with http2.opened(address, http2.PREFACE, http2.settings(), half) as connection:
            assert served_still(address, known.header("somebody"))
            assert http2.closed_within(connection, DEADLINE)


@pytest.mark.slow
def test_connections_without_calls_are_closed(known):
    with (
        guarded(callers=known.path, idle_seconds=1.0, keepalive_seconds=60) as server,
        http2.opened(server.addresses.grpc, http2.PREFACE, http2.settings()) as connection,
    ):
        assert http2.closed_within(connection, DEADLINE)


@pytest.mark.slow
def test_more_connections_than_there_may_be(known):
    with guarded(callers=known.path, max_connections=8) as server, ExitStack() as stack:
        address = server.addresses.grpc
        hello = http2.PREFACE + http2.settings()
        open_ones = [stack.enter_context(http2.opened(address, hello)) for _ in range(7)]
        assert all(connection.recv(1 << 16) for connection in open_ones), (
            "each was let in before the others come"
        )
        with ExitStack() as flood:
            further = [flood.enter_context(http2.opened(address, hello)) for _ in range(20)]
            shut = sum(http2.closed_within(connection, 2.0) for connection in further)
        assert shut >= 15
        assert not any(http2.closed_within(connection, 0.01) for connection in open_ones)
        wait_for(lambda: served_still(address, known.header("somebody")))


@pytest.mark.slow
def test_a_message_that_never_comes(known):
    """Headers of a call, with a good token, and then nothing: the call ends by itself."""
    block = http2.headers(SCORE, known.header("somebody"))
    start = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block)
    dribble = http2.frame(http2.DATA, 0, 1, http2.message(b"x" * 1000)[:20])
    with guarded(callers=known.path, max_message_seconds=2.0, max_calls_per_caller=1) as server:
        address, header = server.addresses.grpc, known.header("somebody")
        hello = http2.PREFACE + http2.settings()
        with connected(address) as channel, http2.opened(address, hello, start, dribble):
            stub = MonitorServiceStub(channel)
            wait_for(lambda: calls_of(server, "somebody") == 1)
            assert is_refused(stub, header)
            wait_for(lambda: not is_refused(stub, header))


def calls_of(server, caller):
    samples = scrape(server.addresses.metrics)
    return samples["sae_monitor_caller_calls_total", frozenset({("caller", caller)})]


def is_refused(stub, header):
    try:
        listed(stub, header)
    except grpc.RpcError as error:
        return error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return False


@pytest.mark.parametrize("count", [1, 500])
def test_header_bombs(known, count):
    """One value of 60 kB, or 500 small ones: refused by size, before anybody looks at who sent them."""
    bomb = [(f"x-{number}", "y" * (60_000 // count)) for number in range(count)]
    with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
        header = known.header("somebody")
        with fails("RESOURCE_EXHAUSTED"):
            listed(MonitorServiceStub(channel), header + bomb)
        assert served_still(server.addresses.grpc, header)


def test_headers_that_never_end(known):
    """CONTINUATION frames without END_HEADERS: the connection is closed long before they are kept."""
    rest = http2.frame(http2.CONTINUATION, 0, 1, b"\0\x01x\x7f\x80\x7f" + b"y" * 16_000)
    with guarded(callers=known.path) as server:
        address = server.addresses.grpc
        start = http2.frame(http2.HEADERS, 0, 1, http2.headers(SCORE))
        with http2.opened(address, http2.PREFACE, http2.settings(), start) as connection:
            try:
                for _ in range(2000):
                    connection.sendall(rest)
            except OSError:
                pass
            assert http2.closed_within(connection, DEADLINE)
        assert served_still(address, known.header("somebody"))


def test_streams_that_are_opened_and_reset(known):
    """Rapid reset: no call is left behind, and others are served meanwhile."""
    block = http2.headers(SCORE, known.header("somebody"))
    body = http2.message(pb.ScoreRequest(input=pb.Input(text="a")).SerializeToString())

    def burst(first):
        streams = range(first, first + 200, 2)
        return b"".join(
            http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block)
            + http2.frame(http2.DATA, http2.END_STREAM, stream, body)
            + http2.frame(http2.RST_STREAM, 0, stream, b"\0\0\0\x08")
            for stream in streams
        )

    with guarded(callers=known.path) as server:
        address = server.addresses.grpc
        with http2.opened(address, http2.PREFACE, http2.settings()) as connection:
            try:
                for number in range(20):
                    connection.sendall(burst(1 + 200 * number))
            except OSError:
                pass
            assert served_still(address, known.header("somebody"))
        wait_for(lambda: not server.runtime.scorer.queue_depth())


def test_many_streams_on_one_connection(known):
    with guarded(callers=known.path, max_calls_per_connection=4) as server:
        server.runtime.scorer.gate.clear()
        with connected(server.addresses.grpc) as channel:
            request = pb.ScoreRequest(input=pb.Input(text="hold"))
            header, stub = known.header("somebody"), MonitorServiceStub(channel)
            # A client learns of the limit with its first answer.
            assert listed(stub, header).policies
            calls = [stub.Score.future(request, timeout=DEADLINE, metadata=header) for _ in range(40)]
            wait_for(lambda: len(server.runtime.scorer.submitted) == 4)
            assert served_still(server.addresses.grpc, header)
            assert len(server.runtime.scorer.submitted) == 4
            server.runtime.scorer.gate.set()
            # At the limit gRPC refuses streams that come a moment too early, and the client tries them once more.
            codes = [call.code().name for call in calls]
            assert set(codes) <= {"OK", "UNAVAILABLE"}
            assert codes.count("OK") >= 4


def test_pings_too_often(known):
    ping = http2.frame(http2.PING, 0, 0, b"12345678")
    with guarded(callers=known.path) as server:
        address = server.addresses.grpc
        with http2.opened(address, http2.PREFACE, http2.settings()) as connection:
            try:
                for _ in range(50):
                    connection.sendall(ping)
            except OSError:
                pass
            assert http2.closed_within(connection, DEADLINE)
        assert served_still(address, known.header("somebody"))


def watch(stub):
    return stub.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE)


def test_watchers_of_health_cannot_take_every_place():
    with serving(max_concurrent_calls=1) as served:
        stub = health_pb2_grpc.HealthStub(served.channel)
        watchers = [watch(stub) for _ in range(MOST_STREAMS)]
        assert all(next(watcher).status == 1 for watcher in watchers)
        with fails("RESOURCE_EXHAUSTED"):
            next(watch(stub))
        assert served.score("hello").verdict.status == pb.CHECK_STATUS_CHECKED
        for watcher in watchers:
            watcher.cancel()
        wait_for(lambda: next(watch(stub), None) is not None)


@pytest.mark.slow
def test_a_watcher_that_reads_nothing_holds_nobody_up(monkeypatch):
    """A window of zero: nothing can be written to it. Health goes on, and so does the way to stop."""
    monkeypatch.setattr(health, "_SLOWEST_WRITE", 1.0)
    begun, watching = threading.Event(), health.HealthServicer.Watch

    async def noted(servicer, request, context):
        begun.set()
        await watching(servicer, request, context)

    monkeypatch.setattr(health.HealthServicer, "Watch", noted)
    start = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, http2.headers(WATCH))
    body = http2.frame(http2.DATA, http2.END_STREAM, 1, http2.message(b""))
    ended = threading.Event()
    with ExitStack() as stack:
        with guarded(grace=1.0) as server:
            hello = http2.PREFACE + http2.settings(window=0)
            stack.enter_context(http2.opened(server.addresses.grpc, hello, start, body))
            assert begun.wait(DEADLINE)
            server.runtime.engine.die()
            with connected(server.addresses.grpc) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                ask = health_pb2.HealthCheckRequest()
                wait_for(lambda: stub.Check(ask, timeout=DEADLINE).status == 2)
        ended.set()
    assert ended.is_set()


def test_reflection_is_off_where_callers_are_asked(known):
    def reflected(channel, header=None):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return list(stub.ServerReflectionInfo(iter([request]), timeout=DEADLINE, metadata=header))

    with (
        guarded(callers=known.path) as server,
        connected(server.addresses.grpc) as channel,
        fails("UNIMPLEMENTED"),
    ):
        reflected(channel, known.header("somebody"))
    with guarded(callers=known.path, reflection=True) as server, connected(server.addresses.grpc) as channel:
        with fails("UNAUTHENTICATED"):
            reflected(channel)
        assert reflected(channel, known.header("somebody"))


def test_health_needs_no_token(known):
    with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE).status == 1
        assert next(watch(stub)).status == 1
