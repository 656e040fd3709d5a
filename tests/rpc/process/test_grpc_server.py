"""The server's own core: bytes that would end grpcio's do not end it, and unknown methods are answered."""

import asyncio
import time

import grpc
import pytest

from monitor.rpc.process.grpc_server import CoreServer
from monitor.v1 import monitor_pb2 as pb
from tests.rpc import http2
from tests.rpc.conftest import DEADLINE, fails, serving
from tests.rpc.secured import PLAIN


def call_with(path):
    """A whole call whose path is these bytes."""
    block = http2.headers("/monitor.v1.MonitorService/Score")
    known = b"\x20/monitor.v1.MonitorService/Score"
    assert known in block
    block = block.replace(known, bytes([len(path)]) + path)
    return http2.frame(http2.HEADERS, http2.END_HEADERS, 1, block) + http2.frame(
        http2.DATA, http2.END_STREAM, 1, http2.message(b"")
    )


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


def test_the_server_is_built_as_grpcio_builds_its_own():
    """What an upgrade of grpcio may change: the base's constructor and the names that are used here."""
    import inspect

    from grpc._cython import cygrpc
    from grpc.aio._server import Server

    names = list(inspect.signature(Server.__init__).parameters)
    assert names[1:] == [
        "thread_pool",
        "generic_handlers",
        "interceptors",
        "options",
        "maximum_concurrent_rpcs",
        "compression",
    ]
    assert inspect.iscoroutinefunction(CoreServer.start)
    for name in ("_request_call", "_request_registered_call", "_server_main_loop"):
        assert hasattr(cygrpc.AioServer, name)
