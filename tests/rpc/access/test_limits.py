"""How much one caller may have at once, how long a call may take, and what happens before memory is gone."""

import socket
import time

import grpc
import pytest

from monitor.rpc.access.exposure import is_loopback
from monitor.rpc.access.roles import Role
from monitor.rpc.server import Server, run_in_background
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import DEADLINE, connected, details, fails, fields, generation, serving, settings
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.secured import Callers, guarded
from tests.waiting import wait_for


@pytest.fixture
def known(tmp_path):
    found = Callers(tmp_path / "callers")
    found.add("greedy", Role.INFER, calls=2, tokens=20)
    found.add("modest", Role.INFER)
    return found


def asked(text="one two", **sampling):
    return pb.GenerateRequest(generation=generation(text, **sampling))


def test_calls_of_one_caller_leave_room_for_others(known):
    with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
        stub = MonitorServiceStub(channel)
        server.runtime.engine.gate.clear()
        held = [
            stub.Generate.future(asked(max_new_tokens=1), timeout=DEADLINE, metadata=known.header("greedy"))
            for _ in range(2)
        ]
        wait_for(lambda: len(server.runtime.engine.submitted) == 2)
        with fails("RESOURCE_EXHAUSTED") as caught:
            stub.Generate(asked(), timeout=DEADLINE, metadata=known.header("greedy"))
        assert details(caught[0])["RetryInfo"].retry_delay.ToSeconds() == 1
        scored = stub.Score(
            pb.ScoreRequest(input=pb.Input(text="hi")), timeout=DEADLINE, metadata=known.header("modest")
        )
        assert scored.verdict.status == pb.CHECK_STATUS_CHECKED
        server.runtime.engine.gate.set()
        assert all(call.result().text for call in held)
        assert stub.Generate(asked(max_new_tokens=1), timeout=DEADLINE, metadata=known.header("greedy")).text


def test_tokens_of_one_caller(known):
    with guarded(callers=known.path) as server, connected(server.addresses.grpc) as channel:
        stub, header = MonitorServiceStub(channel), known.header("greedy")
        with fails("INVALID_ARGUMENT") as caught:
            stub.Generate(asked(max_new_tokens=30), timeout=DEADLINE, metadata=header)
        assert fields(caught[0]) == ["request"]
        server.runtime.engine.gate.clear()
        # Three tokens of prompt with BOS, and twelve of answer.
        held = stub.Generate.future(asked(max_new_tokens=12), timeout=DEADLINE, metadata=header)
        wait_for(lambda: server.runtime.engine.submitted)
        with fails("RESOURCE_EXHAUSTED") as caught:
            stub.Generate(asked(max_new_tokens=12), timeout=DEADLINE, metadata=header)
        assert "RetryInfo" in details(caught[0])
        server.runtime.engine.gate.set()
        assert held.result().text
        assert stub.Generate(asked(max_new_tokens=12), timeout=DEADLINE, metadata=header).text


@pytest.mark.slow
def test_a_call_ends_although_its_caller_would_wait_for_ever():
    with serving(max_call_seconds=0.5) as served:
        served.runtime.engine.gate.clear()
        began = time.monotonic()
        with fails("DEADLINE_EXCEEDED") as caught:
            served.stub.Generate(asked())
        assert "the longest here" in caught[0].details()
        assert time.monotonic() - began > 0.4
        wait_for(lambda: served.runtime.engine.cancelled)
        served.runtime.engine.gate.set()
        assert served.metric("requests_total", method="Generate", code="DEADLINE_EXCEEDED") == 1


@pytest.mark.slow
def test_a_caller_who_does_not_read_its_stream_loses_it():
    """The answer is larger than any window, so writing waits; the time limit ends it and frees the engine."""
    with serving(max_call_seconds=1.5) as served:
        request = pb.GenerateStreamRequest(
            generation=generation("word " * 40, max_new_tokens=10_000_000, include_tokens=True)
        )
        stream = served.stub.GenerateStream(request)
        next(stream)
        wait_for(lambda: served.runtime.engine.cancelled)
        assert served.score("still here").verdict.status == pb.CHECK_STATUS_CHECKED
        stream.cancel()


def test_a_caller_who_leaves_while_it_is_written_to_is_no_error_of_ours(capsys):
    def ended():
        raise grpc.aio.InternalError("Failed to execute batch")

    with serving() as served:
        served.runtime.inspecting = ended
        with fails("CANCELLED"):
            served.stub.Inspect(pb.InspectRequest(input=pb.Input(text="hello")), timeout=DEADLINE)
        assert served.metric("requests_total", method="Inspect", code="CANCELLED") == 1
    assert "unexpectedly" not in capsys.readouterr().out


def test_calls_are_refused_before_memory_is_gone():
    with serving(memory_limit_bytes=1 << 20) as served:
        with fails("RESOURCE_EXHAUSTED") as caught:
            served.score("hello")
        assert details(caught[0])["RetryInfo"].retry_delay.ToSeconds() == 1
        assert served.metric("rejected_requests_total", reason="memory") == 1
        assert served.metric("memory_used_ratio") > 1


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.5.0.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
    ],
)
def test_what_is_this_machine(address, loopback):
    assert is_loopback(address) == loopback


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "callers are not authenticated"),
        ({"callers": "callers"}, "tokens would travel unencrypted"),
    ],
)
def test_listening_beyond_this_machine_is_refused_unless_asked_for(known, capsys, changes, said):
    changes = dict.fromkeys(changes, known.path) | {"listen": "0.0.0.0:0"}
    chosen = policies()
    server = Server(settings(**changes), FakeRuntime(chosen.watch), chosen)
    with pytest.raises(Exception, match=said), run_in_background(server, 1.0):
        pass
    with guarded(**changes, insecure_listen=True) as opened:
        assert opened.addresses.grpc.startswith("0.0.0.0:")
    assert "INSECURE" in capsys.readouterr().out


def test_everything_is_on_loopback_unless_configured():
    from monitor.settings import Settings

    for name in ("listen", "metrics_listen"):
        assert is_loopback(Settings.model_fields[name].default)


def reached(host, address):
    """Whether somebody takes a connection at a port of another address of this machine."""
    with socket.socket() as client:
        client.settimeout(10)
        return client.connect_ex((host, int(address.rpartition(":")[2]))) == 0


def test_the_sockets_are_on_loopback_only():
    """What listens everywhere answers at 127.0.0.2 as well; what listens at 127.0.0.1 does not."""
    with guarded() as server:
        for address in (server.addresses.grpc, server.addresses.metrics):
            assert reached("127.0.0.1", address)
            assert not reached("127.0.0.2", address)
    with guarded(metrics_listen="0.0.0.0:0") as server:
        assert reached("127.0.0.2", server.addresses.metrics)
        assert not reached("127.0.0.2", server.addresses.grpc)
