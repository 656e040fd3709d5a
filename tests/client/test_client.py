"""The blocking client and the one for asyncio, against real servers over a fake runtime."""

from __future__ import annotations

import asyncio
import inspect
import re
import socket
import textwrap
import time
from concurrent import futures
from pathlib import Path

import pytest

import monitor.client
from monitor.client import AsyncClient, CallFailed, Unreachable, connect
from monitor.rpc.access.roles import Role
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.certificates import authority, issued
from tests.rpc.secured import Callers, guarded
from tests.waiting import wait_for


def test_the_lines_in_the_package_run_as_they_stand(served, capsys):
    lines = re.search(r"\n\n((?:    .*\n|\n)+)", inspect.getdoc(monitor.client))[1]
    code = textwrap.dedent(lines).replace("127.0.0.1:50051", served.addresses.grpc)
    assert len(code.strip().splitlines()) <= 6
    exec(compile(code, "docstring", "exec"), {})
    printed = capsys.readouterr().out
    assert printed.startswith("Hello, how are you?")
    assert printed.endswith("False\n")


def test_the_readmes_lines_run(served):
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = text.split("## Use it")[1].split("```python\n")[1].split("```")[0]
    assert "127.0.0.1:50051" in code
    exec(compile(code.replace("127.0.0.1:50051", served.addresses.grpc), "README.md", "exec"), {})


def test_a_text_and_a_conversation_are_scored(client):
    answer = client.score("they lie to us")
    assert [(d.policy, d.rule) for d in answer.verdict.detections] == [("deception", "word")]
    turns = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "a calm day"}]
    assert not client.score(turns).verdict.matched
    assert len(client.score(turns, include_tokens=True).tokens) == 6


def test_a_generation_takes_plain_values(client):
    answer = client.generate("what a calm day", max_new_tokens=3, temperature=0.0, stop=["zzz"], seed=7)
    assert answer.text.split() == ["what", "a", "calm"]
    assert answer.finish_reason == pb.FINISH_REASON_LENGTH
    clamped = client.generate("they lie", max_new_tokens=2, clamps={7: -1.0}, include_tokens=True)
    assert clamped.tokens


def test_a_message_can_be_given_instead(client):
    generation = pb.Generation(input=pb.Input(text="a b c"), sampling=pb.Sampling(max_new_tokens=2))
    assert client.generate(generation).text.split() == ["a", "b"]
    with pytest.raises(ValueError, match="leave out seed"):
        client.generate(generation, seed=1)


def test_a_stream_ends_with_the_verdict(client):
    with client.generate_stream("a calm day", max_new_tokens=3) as events:
        kinds = [event.WhichOneof("event") for event in events]
    assert kinds[-1] == "final"
    assert "chunk" in kinds


def test_a_stream_that_is_left_ends_on_the_server(served, client):
    with served.runtime.engine.stopped_behind(3):
        with client.generate_stream("a calm day", max_new_tokens=50) as events:
            next(events)
        wait_for(lambda: served.runtime.engine.cancelled)
    wait_for(lambda: served.metric("requests_total", method="GenerateStream", code="CANCELLED") == 1)


def test_iterating_a_cancelled_stream_ends(served, client):
    with served.runtime.engine.stopped_behind(10):
        events = client.generate_stream("a calm day", max_new_tokens=50)
        next(events)
        events.cancel()
        assert len(list(events)) < 10


def test_the_other_calls(served, client):
    assert client.health() == "SERVING"
    assert [policy.name for policy in client.policies().policies] == ["deception", "weapons"]
    found = client.inspect("a calm day", top_k=2)
    assert [len(token.features) for token in found.tokens] == [2, 2, 2, 2]
    assert not client.reload().changed


def test_detections_are_watched(client):
    watched = client.watch_detections(policies=["deception"], minimum_severity="high")
    with watched as events, futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(next, events)
        answer = scored_until(first, client)
    assert first.result().request_id in answer
    assert first.result().detections[0].policy == "deception"


def scored_until(first, client):
    """The ids of requests that were scored until the stream had its first event."""
    ids = []
    while not first.done():
        ids.append(client.score("they lie").request_id)
        time.sleep(0.01)
    return ids


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([{"role": "robot", "content": "x"}], "one of the roles system, user, assistant"),
        ([{"role": "user"}], "is no turn"),
        ([{"role": "user", "content": "x", "name": "y"}], "is no turn"),
    ],
)
def test_turns_that_are_none(client, prompt, said):
    with pytest.raises(ValueError, match=said):
        client.score(prompt)


def test_a_severity_that_is_none(client):
    with pytest.raises(ValueError, match="write low, medium, high or critical"):
        client.watch_detections(minimum_severity="loud")


@pytest.mark.slow
def test_a_deadline_holds_for_a_call_or_for_all(served):
    served.runtime.inspecting = lambda: time.sleep(1.0)
    with connect(served.addresses.grpc) as patient:
        began = time.monotonic()
        with pytest.raises(CallFailed) as caught:
            patient.inspect("a", timeout=0.1)
        assert caught.value.code == "DEADLINE_EXCEEDED"
        assert time.monotonic() - began < 0.9
    with connect(served.addresses.grpc, timeout=0.1) as hasty:
        with pytest.raises(CallFailed, match="DEADLINE_EXCEEDED"):
            hasty.inspect("a")
        assert hasty.inspect("a", timeout=20.0).tokens


@pytest.mark.slow
def test_nobody_there():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"cannot connect to {address}"):
            connect(address)
        taken.listen()
        with pytest.raises(Unreachable, match="no answer from"):
            connect(address, connect_timeout=0.2)

        async def later() -> None:
            async with AsyncClient(address) as client:
                await client.wait_until_connected(0.2)

        with pytest.raises(Unreachable, match="no answer from"):
            asyncio.run(later())


@pytest.mark.slow
def test_tokens_and_certificates(tmp_path):
    ours, callers = authority(), Callers(tmp_path / "callers")
    token = callers.add("me", Role.INFER)
    (tmp_path / "ca.pem").write_bytes(ours.pem)
    files = issued(ours, "server").write(tmp_path) | {
        "callers": callers.path,
        "tls_client_ca": tmp_path / "ca.pem",
    }
    own = issued(ours, "client").write(tmp_path, "client")
    identity = {"ca": ours.pem, "certificate": own["tls_certificate"], "key": str(own["tls_key"])}
    with guarded(**files) as server:
        address = f"localhost:{server.addresses.grpc.rpartition(':')[2]}"
        with connect(address, token=token, **identity) as client:
            assert not client.score("a calm day").verdict.matched
            with client.generate_stream("a", max_new_tokens=1) as events:
                assert list(events)
        unknown = pytest.raises(CallFailed, match="UNAUTHENTICATED")
        with connect(address, token="saem_wrong", **identity) as stranger, unknown:
            stranger.score("a")
        with pytest.raises(Unreachable):
            connect(address, ca=ours.pem, connect_timeout=1.0)

        async def later() -> pb.ScoreResponse:
            async with AsyncClient(address, token=token, **identity) as client:
                return await client.score("they lie")

        assert asyncio.run(later()).verdict.matched
