"""Health asks for no token, so strangers must not be able to take every place with it: calls that say nothing, and
calls whose answers nobody takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from monitor.rpc.access.other_services import MOST_BRIEF
from monitor.rpc.server import _EXTRA_CALLS
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc import http2
from tests.rpc.conftest import DEADLINE, connected, fails, scrape
from tests.rpc.secured import Guarded, guarded
from tests.waiting import wait_for

CALLS = 4
EACH = 700
"""Calls of one connection; two have more than gRPC lets in."""


@pytest.fixture
def server() -> Iterator[Guarded]:
    with guarded(max_concurrent_calls=CALLS, grace=1.0) as running:
        yield running


def flood(
    stack: ExitStack,
    server: Guarded,
    method: str,
    window: int,
    body: bytes = b"",
    connections: int = 2,
    each: int = EACH,
) -> None:
    """Open calls without a token, and leave them."""
    assert connections * each > CALLS + _EXTRA_CALLS
    block = http2.headers(f"/grpc.health.v1.Health/{method}")
    for _ in range(connections):
        calls = []
        for stream in range(1, 2 * each, 2):
            calls.append(http2.frame(http2.HEADERS, http2.END_HEADERS, stream, block))
            if body:
                calls.append(http2.frame(http2.DATA, http2.END_STREAM, stream, body))
        hello = http2.PREFACE + http2.settings(window=window)
        connection = stack.enter_context(http2.opened(server.addresses.grpc, hello, *calls))
        # The answer to a ping comes after all that was sent before it was taken in.
        connection.sendall(http2.frame(http2.PING, 0, 0, bytes(8)))
        assert connection.recv(1)


def others_are_served(server: Guarded) -> None:
    with connected(server.addresses.grpc) as channel:
        health, stub = health_pb2_grpc.HealthStub(channel), MonitorServiceStub(channel)
        wait_for(lambda: answered(health))
        for _ in range(10):
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE).status == 1
            asked = pb.ScoreRequest(input=pb.Input(text="hello"))
            assert stub.Score(asked, timeout=DEADLINE).verdict.status == pb.CHECK_STATUS_CHECKED


def answered(health: health_pb2_grpc.HealthStub) -> bool:
    """Whether the flood, which is taken in call by call, has been dealt with."""
    try:
        health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
def test_calls_that_say_nothing_take_nobodys_place(server: Guarded, method: str) -> None:
    with ExitStack() as stack:
        flood(stack, server, method, window=65_535)
        others_are_served(server)
        assert rejected(server) > 0


@pytest.mark.slow
def test_answers_that_nobody_takes_do_not_either(server: Guarded) -> None:
    with ExitStack() as stack:
        flood(stack, server, "Check", window=0, body=http2.message(b""))
        others_are_served(server)


def test_nor_do_a_few_calls_of_each_of_many_connections() -> None:
    """No connection has too many calls, and none of them ends by itself: the oldest give way to the newest."""
    with (
        guarded(max_concurrent_calls=CALLS, grace=1.0, max_message_seconds=3600.0) as server,
        connected(server.addresses.grpc) as channel,
        ExitStack() as stack,
    ):
        over = threading.Event()
        stack.callback(over.set)
        oldest = channel.stream_stream("/grpc.health.v1.Health/Check")(nothing(over), timeout=DEADLINE)
        started = time.monotonic()
        flood(stack, server, "Check", window=65_535, connections=20, each=60)
        others_are_served(server)
        with fails("DEADLINE_EXCEEDED") as caught:
            next(oldest)
        assert "took too long" in str(caught[0].details())
        # Not because the silent connections were closed, which takes `keepalive_seconds`.
        assert time.monotonic() - started < 20


def rejected(server: Guarded) -> float:
    """Calls that the metrics count as refused because there were too many."""
    name = "sae_monitor_rejected_requests_total"
    return scrape(server.addresses.metrics)[name, frozenset({("reason", "calls")})]


def test_probes_that_end_make_room(server: Guarded) -> None:
    with connected(server.addresses.grpc) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for _ in range(MOST_BRIEF + 10):
            assert health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE).status == 1
    assert rejected(server) == 0


def nothing(over: threading.Event) -> Iterator[bytes]:
    """A message that does not come."""
    over.wait(DEADLINE)
    yield from ()


def test_a_message_that_never_comes_is_waited_for_a_while() -> None:
    over = threading.Event()
    with guarded(max_message_seconds=0.2) as server, connected(server.addresses.grpc) as channel:
        call = channel.stream_stream("/grpc.health.v1.Health/Check")
        try:
            with fails("DEADLINE_EXCEEDED"):
                next(call(nothing(over), timeout=DEADLINE))
        finally:
            over.set()


def test_what_is_no_message_is_a_bad_request() -> None:
    with guarded() as server, connected(server.addresses.grpc) as channel:
        for method in ("Check", "Watch"):
            call = channel.stream_stream(f"/grpc.health.v1.Health/{method}")
            with fails("INVALID_ARGUMENT"):
                next(call(iter([b"\x0a\xff\xff"]), timeout=DEADLINE))
            with fails("INVALID_ARGUMENT"):
                next(call(iter([]), timeout=DEADLINE))


def test_an_unknown_service_is_not_found() -> None:
    with guarded() as server, connected(server.addresses.grpc) as channel, fails("NOT_FOUND"):
        stub = health_pb2_grpc.HealthStub(channel)
        stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=DEADLINE)
