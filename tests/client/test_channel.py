"""How a client connects: identities, and which failed calls are tried again."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from monitor.client import CallFailed, Client, connect
from monitor.client.channel import MAX_RESPONSE_BYTES, Destination, await_end_of_watch, service_config
from monitor.errors import ConfigurationError, Overloaded, Unavailable
from monitor.rpc import error_status
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc


class Busy(monitor_pb2_grpc.MonitorServiceServicer):
    """Refuses the first calls with an error of the server's, and counts."""

    def __init__(self, refusals: int, error: Exception) -> None:
        self.refusals, self.error = refusals, error
        self.times: list[float] = []

    def Score(self, request, context):  # noqa: N802
        self.times.append(time.monotonic())
        if len(self.times) <= self.refusals:
            context.abort_with_status(error_status.grpc_status(error_status.status_of(self.error, "r")))
        return pb.ScoreResponse(request_id="r")


@contextlib.contextmanager
def busy(refusals: int, error: Exception) -> Iterator[tuple[str, Busy]]:
    service = Busy(refusals, error)
    server = grpc.server(futures.ThreadPoolExecutor(2))
    monitor_pb2_grpc.add_MonitorServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}", service
    finally:
        server.stop(None).wait()


@pytest.mark.slow
def test_a_call_that_was_turned_away_is_tried_again():
    with busy(2, Unavailable("the server is stopping")) as (address, service), connect(address) as client:
        assert client.score("a").request_id == "r"
    assert len(service.times) == 3


def test_a_long_request_is_tried_again_too():
    with busy(1, Unavailable("the server is stopping")) as (address, service), connect(address) as client:
        client.score("word " * 200_000)
    assert len(service.times) == 2


@pytest.mark.slow
def test_the_time_to_wait_is_the_servers():
    with busy(1, Overloaded("full", retry_after=1.5)) as (address, service), connect(address) as client:
        client.score("a")
    assert 1.3 < service.times[1] - service.times[0] < 4.0


def test_other_errors_are_not_tried_again():
    refused = pytest.raises(CallFailed, match="FAILED_PRECONDITION")
    with busy(1, ConfigurationError("no")) as (address, service), connect(address) as client, refused:
        client.score("a")
    assert len(service.times) == 1


def test_retries_can_be_turned_off_and_the_time_to_wait_is_told():
    error = Overloaded("full", retry_after=2.5)
    refused = pytest.raises(CallFailed)
    with busy(9, error) as (address, service), connect(address, retries=0) as client, refused as caught:
        client.score("a")
    assert (len(service.times), caught.value.code, caught.value.retry_after) == (1, "RESOURCE_EXHAUSTED", 2.5)


def test_a_channel_whose_watch_has_ended_closes_in_peace():
    with busy(0, Unavailable("no")) as (address, _), grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        watch = channel._connectivity_state
        assert watch.polling, "grpcio's thread follows the state; the attribute has another name now"
        await_end_of_watch(channel)
        assert not watch.polling
        await_end_of_watch(channel)  # Without a watch there is nothing to wait for.


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"token": "two\nlines"}, "one line of ASCII"),
        ({"token": "två"}, "one line of ASCII"),
        ({"certificate": b"x"}, "both `certificate` and `key`"),
        ({"ca": "none/of/these.pem"}, "cannot be read: No such file"),
        ({"retries": 5}, "give 0 to 4"),
    ],
)
def test_identities_that_are_none(wrong, said):
    with pytest.raises(ConfigurationError, match=said):
        Client("127.0.0.1:1", **wrong)


@pytest.mark.parametrize(
    ("address", "proxied"),
    [
        ("127.0.0.1:50051", False),
        ("127.8.0.1:1", False),
        ("localhost:50051", False),
        ("[::1]:50051", False),
        ("10.0.0.1:50051", True),
        ("dns:///monitor:50051", True),
        ("localhost.example:1", True),
    ],
)
def test_no_proxy_stands_before_a_server_on_this_machine(address, proxied):
    options = dict(Destination(address).options())
    assert ("grpc.enable_http_proxy" not in options) is proxied
    assert options["grpc.max_receive_message_length"] == MAX_RESPONSE_BYTES


def test_retries_are_told_to_grpc():
    options = dict(Destination("a:1", retries=2).options())
    (method,) = json.loads(options["grpc.service_config"])["methodConfig"]
    assert method == service_config(2)["methodConfig"][0]
    assert method["retryPolicy"]["maxAttempts"] == 3
    assert {name["service"] for name in method["name"]} == {
        "monitor.v1.MonitorService",
        "grpc.health.v1.Health",
    }
    assert "grpc.service_config" not in dict(Destination("a:1", retries=0).options())


def test_the_token_is_sent_with_every_call():
    assert Destination("a:1").metadata == ()
    assert Destination("a:1", token="saem_x").metadata == (("authorization", "Bearer saem_x"),)


def test_calls_travel_in_the_clear_unless_something_asks_for_tls(tmp_path):
    assert Destination("a:1").credentials() is None
    (tmp_path / "ca.pem").write_bytes(b"")
    for asked in ({"tls": True}, {"ca": tmp_path / "ca.pem"}, {"certificate": b"c", "key": b"k"}):
        assert isinstance(Destination("a:1", **asked).credentials(), grpc.ChannelCredentials)
