"""The blocking client and the one for asyncio, against real servers over a fake runtime."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
import socket
import textwrap
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

import monitor.client
from monitor.client import AsyncClient, CallFailed, Client, Unreachable, connect
from monitor.client.requests import as_generation
from monitor.errors import ConfigurationError, Overloaded, Unavailable, Violation
from monitor.rpc import error_status
from monitor.rpc.access.roles import Role
from monitor.v1 import monitor_pb2 as pb
from monitor.v1 import monitor_pb2_grpc
from tests.rpc.certificates import authority, issued
from tests.rpc.secured import Callers, guarded


@pytest.fixture
def client(served):
    with connect(served.addresses.grpc) as connected:
        yield connected


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


def test_options_become_fields():
    made = as_generation(
        [{"role": "assistant", "content": "x"}],
        clamps={7: -1.0},
        stop=("a", "b"),
        top_k=3,
        top_p=0.5,
        session="s",
        labels={"team": "risk"},
        truncate=True,
        include_tokens=True,
    )
    assert made == pb.Generation(
        input=pb.Input(
            conversation=pb.Conversation(messages=[pb.ChatMessage(role=pb.ROLE_ASSISTANT, content="x")]),
            truncate=True,
            session_id="s",
            labels={"team": "risk"},
        ),
        sampling=pb.Sampling(stop=["a", "b"], top_k=3, top_p=0.5),
        clamps=[pb.Clamp(feature=7, target=-1.0)],
        include_tokens=True,
    )
    everywhere = pb.Clamp(feature=7, target=-1.0, where=pb.CLAMP_WHERE_EVERYWHERE)
    assert list(as_generation("x", clamps=[everywhere]).clamps) == [everywhere]


@pytest.mark.parametrize(
    "wrong", [{"top_k": 1 << 40}, {"max_new_tokens": 1.5}, {"clamps": {-1: 0.0}}, {"stop": [1]}]
)
def test_values_without_a_place_are_errors(wrong):
    with pytest.raises((ValueError, TypeError)):
        as_generation("x", **wrong)


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
    with client.generate_stream("a calm day", max_new_tokens=50) as events:
        next(events)
    waited_for(lambda: served.metric("requests_total", method="GenerateStream", code="CANCELLED") == 1)


def test_iterating_a_cancelled_stream_ends(client):
    events = client.generate_stream("a calm day", max_new_tokens=50)
    next(events)
    events.cancel()
    assert len(list(events)) < 50


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


def test_what_is_wrong_with_a_request_is_an_exception(client):
    with pytest.raises(CallFailed) as caught:
        client.generate("a", clamps={99: -1.0})
    error = caught.value
    assert error.code == "INVALID_ARGUMENT"
    assert error.violations == (Violation("generation.clamps[0].feature", "99 does not exist"),)
    assert re.fullmatch("[0-9a-f]{32}", error.request_id)
    assert error.retry_after is None
    assert "99 does not exist" in str(error)


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


def test_details_that_a_proxy_made_up_do_no_harm():
    class Refused(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

        def details(self):
            return "upstream"

        def trailing_metadata(self):
            return [("grpc-status-details-bin", b"\xff\xff not a status")]

    error = monitor.client.errors.failure(Refused())
    assert (error.code, error.details, error.violations, error.retry_after) == (
        "UNAVAILABLE",
        "upstream",
        (),
        None,
    )


def test_a_retry_delay_of_nothing_is_a_delay():
    status = error_status.status_of(Overloaded("full", retry_after=0.0), "r")
    assert duration_pb2.Duration() == next(
        retry.retry_delay
        for retry in (error_details_pb2.RetryInfo(),)
        if any(detail.Unpack(retry) for detail in status.details)
    )
    assert ("grpc-retry-pushback-ms", "0") in error_status.grpc_status(status).trailing_metadata


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


def test_the_calls_of_asyncio_are_the_same():
    def calls(kind):
        public = {name: value for name, value in vars(kind).items() if not name.startswith("_")}
        return {
            name: [str(parameter) for parameter in inspect.signature(value).parameters.values()]
            for name, value in public.items()
        }

    assert calls(AsyncClient) == calls(Client)


def test_asyncio(served):
    async def talk() -> None:
        async with AsyncClient(served.addresses.grpc) as client:
            await client.wait_until_connected()
            assert await client.health() == "SERVING"
            assert len((await client.policies()).policies) == 2
            assert (await client.score("they lie")).verdict.matched
            assert (await client.generate("a b", max_new_tokens=2)).text.split() == ["a", "b"]
            assert (await client.inspect("a", top_k=1)).tokens
            kinds = [e.WhichOneof("event") async for e in client.generate_stream("a b", max_new_tokens=2)]
            assert kinds[-1] == "final"
            async with client.generate_stream("a calm day", max_new_tokens=50) as events:
                await anext(events)
            assert [event async for event in events] == []
            with pytest.raises(CallFailed) as caught:
                await client.generate("a", clamps={99: -1.0})
            assert caught.value.violations[0].field == "generation.clamps[0].feature"
            with pytest.raises(CallFailed) as caught:
                async for _ in client.generate_stream("a", clamps={99: -1.0}):
                    pass
            assert caught.value.code == "INVALID_ARGUMENT"
            assert not (await client.reload()).changed
            async with client.watch_detections() as events:
                first = asyncio.ensure_future(anext(events))
                while not first.done():
                    await client.score("they lie")
                    await asyncio.sleep(0.01)
                assert first.result().detections

    asyncio.run(talk())
    waited_for(lambda: served.metric("requests_total", method="GenerateStream", code="CANCELLED") == 1)


def test_a_cancelled_task_is_cancelled(served):
    async def talk() -> None:
        async with AsyncClient(served.addresses.grpc) as client:
            events = client.watch_detections()
            task = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(talk())


def waited_for(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
