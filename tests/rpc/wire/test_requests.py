"""What cannot be served as written: a clear status with field names, and a server that goes on."""

from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest

from monitor.errors import BadRequest
from monitor.rpc.wire import requests
from monitor.v1 import monitor_pb2 as pb
from tests.rpc.conftest import DEADLINE, Served, details, fails, fields, generation, serving

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as running:
        yield running
        assert running.score("it still serves").verdict.status == pb.CHECK_STATUS_CHECKED


def chat(*turns):
    messages = [pb.ChatMessage(role=role, content=content) for role, content in turns]
    return pb.Input(conversation=pb.Conversation(messages=messages))


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (pb.Input(), "input"),
        (pb.Input(text=""), "input.text"),
        (chat(), "input.conversation.messages"),
        (chat((pb.ROLE_USER, "hi"), (pb.ROLE_UNSPECIFIED, "hi")), "input.conversation.messages[1].role"),
        (chat((42, "hi")), "input.conversation.messages[0].role"),
        (chat((pb.ROLE_USER, "")), "input.conversation.messages[0].content"),
        (pb.Input(text="word " * 1000), "input.text"),
    ],
)
def test_inputs(served, content, field):
    for method, request in [
        (served.stub.Score, pb.ScoreRequest(input=content)),
        (served.stub.Inspect, pb.InspectRequest(input=content)),
    ]:
        with fails("INVALID_ARGUMENT") as caught:
            method(request, timeout=DEADLINE)
        assert fields(caught[0]) == [field]
    with fails("INVALID_ARGUMENT") as caught:
        served.stub.Generate(pb.GenerateRequest(generation=pb.Generation(input=content)), timeout=DEADLINE)
    assert fields(caught[0]) == [f"generation.{field}"]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("max_new_tokens", 0, "max_new_tokens"),
        ("max_new_tokens", -1, "max_new_tokens"),
        ("temperature", -0.1, "temperature"),
        ("temperature", NAN, "temperature"),
        ("temperature", INF, "temperature"),
        ("temperature", 1e-9, "temperature"),
        ("top_k", -1, "top_k"),
        ("top_p", 0.0, "top_p"),
        ("top_p", 1.01, "top_p"),
        ("top_p", NAN, "top_p"),
        ("stop", ["fine", ""], "stop[1]"),
        ("stop", ["x" * 257], "stop[0]"),
        ("stop", ["x"] * 17, "stop"),
    ],
)
def test_sampling(served, field, value, path):
    with fails("INVALID_ARGUMENT") as caught:
        served.generate("hello", **{field: value})
    assert fields(caught[0]) == [f"generation.sampling.{path}"]


@pytest.mark.parametrize(
    ("clamps", "path"),
    [
        ([pb.Clamp(feature=1, target=NAN)], "clamps[0].target"),
        ([pb.Clamp(feature=1, target=-INF)], "clamps[0].target"),
        ([pb.Clamp(feature=1, target=101)], "clamps[0].target"),
        ([pb.Clamp(feature=1, target=1), pb.Clamp(feature=1, target=2)], "clamps[1].feature"),
        ([pb.Clamp(feature=1, target=1, where=9)], "clamps[0].where"),
        ([pb.Clamp(feature=99, target=1)], "clamps[0].feature"),
        ([pb.Clamp(feature=2**32 - 1, target=1)], "clamps[0].feature"),
        ([pb.Clamp(feature=i, target=1) for i in range(65)], "clamps"),
    ],
)
def test_clamps(served, clamps, path):
    with fails("INVALID_ARGUMENT") as caught:
        served.generate("hello", clamps=clamps)
    assert fields(caught[0]) == [f"generation.{path}"]


@pytest.mark.parametrize("top_k", [0, -1, 257])
def test_inspections(served, top_k):
    with fails("INVALID_ARGUMENT") as caught:
        served.stub.Inspect(pb.InspectRequest(input=pb.Input(text="hi"), top_k=top_k), timeout=DEADLINE)
    assert fields(caught[0]) == ["top_k"]


def test_every_wrong_field_is_named_at_once(served):
    with fails("INVALID_ARGUMENT") as caught:
        served.generate("", max_new_tokens=0, top_p=2, clamps=[pb.Clamp(feature=1, target=NAN)])
    assert fields(caught[0]) == [
        "generation.input.text",
        "generation.sampling.max_new_tokens",
        "generation.sampling.top_p",
        "generation.clamps[0].target",
    ]
    described = details(caught[0])["BadRequest"].field_violations[1].description
    assert described == "is 0; write a number from 1 to 2147483647"


def test_more_wrong_fields_than_a_status_can_carry(served):
    many = [pb.Clamp(feature=i, target=NAN, where=9) for i in range(60)]
    with fails("INVALID_ARGUMENT") as caught:
        served.generate("hello", clamps=many, stop=[""] * 16)
    assert len(fields(caught[0])) == 8


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff",
        b"\x0a\x05abc",
        b"\x0a\x04\x0a\x02\xff\xfe",
    ],
    ids=["noise", "cut short", "text that is not UTF-8"],
)
@pytest.mark.parametrize("method", ["Score", "Generate", "GenerateStream", "Inspect"])
def test_malformed_messages(served, method, data):
    path = f"/monitor.v1.MonitorService/{method}"
    call = (
        served.channel.unary_stream(path) if method == "GenerateStream" else served.channel.unary_unary(path)
    )
    with fails("INVALID_ARGUMENT") as caught:
        answer = call(
            data if method in ("Score", "Inspect") else b"\x0a" + bytes([len(data)]) + data, timeout=DEADLINE
        )
        list(answer)
    assert fields(caught[0]) == ["request"]


@pytest.mark.slow
def test_a_message_of_a_hundred_megabytes(served):
    huge = pb.ScoreRequest(input=pb.Input(text="x" * 100_000_000))
    with fails("RESOURCE_EXHAUSTED"):
        served.stub.Score(huge, timeout=DEADLINE)
    assert served.score("hello").verdict.status == pb.CHECK_STATUS_CHECKED


def test_log_probabilities_are_limited_at_each_token_and_in_an_answer_in_one_piece(served):
    with fails("INVALID_ARGUMENT") as caught:
        served.generate("one", logprobs=21)
    assert "from 0 to 20" in caught[0].details()
    spec = requests.generation(generation("one", max_new_tokens=1 << 30, logprobs=20))
    requests.check_in_one([spec], 12_000, "generation.logprobs", "max_new_tokens")
    with pytest.raises(BadRequest, match="up to 504000 log-probabilities"):
        requests.check_in_one([spec] * 2, 12_000, "generation.logprobs", "max_new_tokens")
    requests.check_in_one(
        [replace(spec, logprobs=None)] * 64, 12_000, "generation.logprobs", "max_new_tokens"
    )


def test_bad_input_is_counted(served):
    before = served.metric("requests_total", method="Score", code="INVALID_ARGUMENT")
    for text in ("", "word " * 1000):
        with pytest.raises(grpc.RpcError):
            served.score(text)
    assert served.metric("requests_total", method="Score", code="INVALID_ARGUMENT") == before + 2


def test_long_texts_are_refused_off_the_event_loop(served):
    request = pb.GenerateRequest(generation=generation("word " * 100_000))
    with fails("INVALID_ARGUMENT") as caught:
        served.stub.Generate(request, timeout=DEADLINE)
    assert details(caught[0])["ErrorInfo"].reason == "TOO_LONG"
