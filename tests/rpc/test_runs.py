"""Inputs that are too large: refused or cut before they are tokenised, and in nobody else's way."""

import threading

import httpx2 as httpx
import pytest

from monitor.http.door import HttpDoor
from monitor.rpc.access.roles import Role
from monitor.rpc.server import Server, run_in_background
from monitor.rpc.wire.requests import Input, InputLimits
from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.rpc.conftest import (
    DEADLINE,
    Served,
    connected,
    details,
    fails,
    fields,
    generation,
    serving,
    settings,
)
from tests.rpc.fake import FakeRuntime, policies
from tests.rpc.secured import Callers
from tests.waiting import wait_for

MIB = 1 << 20
FITS = 64 * 1024
"""Bytes that the fake's context can hold."""


class Tokenising(FakeRuntime):
    """Notes what is tokenised. `hold` keeps the thread in which a text with the word `held` is tokenised."""

    def __init__(self, watch):
        super().__init__(watch)
        self.hold, self.holding, self.seen = threading.Event(), threading.Event(), []
        self.hold.set()

    def tokenise(self, content, **named):
        texts = [content] if isinstance(content, str) else [turn["content"] for turn in content]
        self.seen.append(sum(len(text.encode()) for text in texts))
        if any("held" in text for text in texts):
            self.holding.set()
            assert self.hold.wait(DEADLINE)
        return super().tokenise(content, **named)


@pytest.fixture
def known(tmp_path):
    found = Callers(tmp_path / "callers")
    found.add("greedy", Role.INFER, Role.INSPECT, tokens=30)
    found.add("modest", Role.INFER)
    return found


@pytest.fixture
def open_served(request):
    changes = {"http_listen": "127.0.0.1:0"} | getattr(request, "param", {})
    chosen = policies()
    runtime = Tokenising(chosen.watch)
    server = Server(settings(**changes), runtime, chosen, door=HttpDoor)
    with run_in_background(server, 5.0) as addresses, connected(addresses.grpc) as channel:
        yield Served(runtime, addresses, channel, MonitorServiceStub(channel), server)
        runtime.hold.set()


def chat(*texts, **more):
    messages = [pb.ChatMessage(role=pb.ROLE_USER, content=text) for text in texts]
    return pb.Input(conversation=pb.Conversation(messages=messages), **more)


def everywhere(served, content):
    """The wrong fields that every method names for an input."""
    asked = pb.Generation(input=content)
    calls = {
        "Score": lambda: served.stub.Score(pb.ScoreRequest(input=content), timeout=DEADLINE),
        "Inspect": lambda: served.stub.Inspect(pb.InspectRequest(input=content), timeout=DEADLINE),
        "Generate": lambda: served.stub.Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE),
        "GenerateStream": lambda: list(
            served.stub.GenerateStream(pb.GenerateStreamRequest(generation=asked), timeout=DEADLINE)
        ),
    }
    for name, call in calls.items():
        with fails("INVALID_ARGUMENT") as caught:
            call()
        yield name, fields(caught[0])[0].removeprefix("generation."), caught[0]


@pytest.mark.parametrize(
    ("content", "field", "reason"),
    [
        (pb.Input(text="x" * 3 * MIB), "input.text", "TOO_LONG"),
        (pb.Input(text="ä " * (FITS // 3 + 1)), "input.text", "TOO_LONG"),
        (chat("x" * FITS, "y"), "input.conversation", "TOO_LONG"),
        (chat(*["x"] * 4097), "input.conversation.messages", "BAD_REQUEST"),
        (chat(*["x"] * 4097, truncate=True), "input.conversation.messages", "BAD_REQUEST"),
        (chat(*[""] * 500_000), "input.conversation.messages", "BAD_REQUEST"),
    ],
)
def test_what_cannot_fit_is_refused_by_every_method_before_it_is_tokenised(
    open_served, content, field, reason
):
    open_served.runtime.seen.clear()
    for name, found, error in everywhere(open_served, content):
        assert found == field, name
        assert details(error)["ErrorInfo"].reason == reason
    assert open_served.runtime.seen == []


@pytest.mark.parametrize("open_served", [{"max_messages": 3}], indirect=True)
def test_the_number_of_messages_is_a_setting(open_served):
    request = pb.ScoreRequest(input=chat("a", "b", "c"))
    assert open_served.stub.Score(request, timeout=DEADLINE).verdict.status == pb.CHECK_STATUS_CHECKED
    for _, found, error in everywhere(open_served, chat("a", "b", "c", "d")):
        assert found == "input.conversation.messages"
        assert "has 4; write at most 3" in error.details()


def post(served, path, **body):
    return httpx.post(f"{served.addresses.http}/v1/{path}", json=body, trust_env=False, timeout=DEADLINE)


def test_the_other_door_has_the_same_limits(open_served):
    open_served.runtime.seen.clear()
    turn = {"role": "user", "content": "x"}
    asked = [
        ("chat/completions", {"messages": [{"role": "user", "content": "x" * 2 * MIB}]}, "messages"),
        ("chat/completions", {"messages": [turn] * 4097}, "messages"),
        ("completions", {"prompt": "x" * 2 * MIB}, "prompt"),
        ("moderations", {"input": ["x" * 2 * MIB]}, "input"),
    ]
    for path, body, field in asked:
        answer = post(open_served, path, model="tiny", **body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field), answer.text
    wrong = dict.fromkeys((f"field{n}" for n in range(200_000)), 0)
    answer = post(open_served, "chat/completions", model="tiny", messages=[turn], **wrong)
    assert answer.status_code == 400
    parts = [{"type": "text", "text": "x"}] * 1025
    answer = post(
        open_served, "chat/completions", model="tiny", messages=[{"role": "user", "content": parts}]
    )
    assert answer.json()["error"]["param"] == "messages[0].content"
    assert open_served.runtime.seen == []


@pytest.mark.parametrize("whole", [True, False])
def test_of_a_text_that_may_be_cut_only_the_end_is_tokenised(open_served, whole):
    open_served.runtime.seen.clear()
    words = "word " * 400_000
    content = (
        pb.Input(text=words + "a lie", truncate=True)
        if whole
        else chat("bomb", words, words, "a lie", truncate=True)
    )
    answer = open_served.stub.Score(pb.ScoreRequest(input=content), timeout=DEADLINE)
    assert open_served.runtime.seen[0] <= FITS + 4
    coverage = answer.verdict.coverage
    assert coverage.tokens_scored == coverage.tokens_run == 64
    dropped = 400_000 if whole else 800_000
    assert coverage.tokens_truncated == pytest.approx(dropped, rel=0.01)
    assert [d.policy for d in answer.verdict.detections] == ["deception"]


@pytest.mark.parametrize(
    "texts", [["abc"], ["äöü" * 50], ["a", "bä", "ccc"], ["x" * 99, "", "y"], ["😀" * 40, "end"]]
)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 100])
def test_what_is_kept_is_the_end(texts, size):
    limits = InputLimits(context=size, longest_token=1, messages=10)
    turns = [{"role": "user", "content": text} for text in texts]
    cut = limits.fitted(Input("input", turns, truncate=True))
    whole, kept = "".join(texts), "".join(cut.texts)
    assert len(cut.texts) == len(texts)
    assert cut.cut == len(whole.encode()) - cut.size
    if len(whole.encode()) <= size:
        assert (kept, cut.cut) == (whole, 0)
    else:
        # Of every message its last character is kept, so that a template finds none empty that was not.
        assert size - 3 <= cut.size <= size + 4 * len(texts)
        assert [text[-1:] for text in cut.texts] == [text[-1:] for text in texts]


def test_a_caller_is_charged_before_the_work(known):
    chosen = policies()
    runtime = Tokenising(chosen.watch)
    runtime.longest_token = 10
    server = Server(settings(callers=known.path), runtime, chosen)
    with run_in_background(server, 5.0) as addresses, connected(addresses.grpc) as channel:
        stub = MonitorServiceStub(channel)
        runtime.seen.clear()
        request = pb.ScoreRequest(input=pb.Input(text="x" * 400))
        with fails("INVALID_ARGUMENT") as caught:
            stub.Score(request, timeout=DEADLINE, metadata=known.header("greedy"))
        assert "needs 40 tokens; this caller may have 30" in caught[0].details()
        assert runtime.seen == []
        assert stub.Score(request, timeout=DEADLINE, metadata=known.header("modest")).verdict.status
        small = pb.ScoreRequest(input=pb.Input(text="x" * 250))
        for _ in range(3):
            assert stub.Score(small, timeout=DEADLINE, metadata=known.header("greedy")).verdict.status


def test_small_inputs_do_not_wait_for_large_ones_nor_is_work_done_for_those_who_left(open_served):
    runtime = open_served.runtime
    runtime.hold.clear()
    large = pb.ScoreRequest(input=pb.Input(text="held " + "x" * 40_000))
    calls = [open_served.stub.Score.future(large, timeout=DEADLINE) for _ in range(8)]
    assert runtime.holding.wait(DEADLINE)
    assert open_served.score("a small one").verdict.status == pb.CHECK_STATUS_CHECKED
    middle = pb.ScoreRequest(input=pb.Input(text="m" * 5000))
    assert open_served.stub.Score(middle, timeout=DEADLINE).verdict.status == pb.CHECK_STATUS_CHECKED
    for call in calls:
        call.cancel()
    wait_for(lambda: open_served.metric("requests_total", method="Score", code="CANCELLED") == 8)
    runtime.hold.set()
    assert open_served.stub.Score(
        pb.ScoreRequest(input=pb.Input(text="y" * 40_000)), timeout=DEADLINE
    ).verdict.status
    assert sum(size > 40_000 for size in runtime.seen) == 1, "seven were dropped before they began"


def test_other_repeated_fields_are_bounded_before_they_are_read(open_served):
    sampled = generation("x", stop=["s"] * 500_000)
    clamped = generation("x", clamps=[pb.Clamp(feature=n, target=-1) for n in range(50_000)])
    labelled = pb.Generation(input=pb.Input(text="x", labels={f"l{n}": "v" for n in range(50_000)}))
    wanted = ("generation.sampling.stop", "generation.clamps", "generation.input.labels")
    for asked, field in zip((sampled, clamped, labelled), wanted, strict=True):
        with fails("INVALID_ARGUMENT") as caught:
            open_served.stub.Generate(pb.GenerateRequest(generation=asked), timeout=DEADLINE)
        assert fields(caught[0]) == [field]
    with fails("INVALID_ARGUMENT") as caught:
        next(
            open_served.stub.WatchDetections(
                pb.WatchDetectionsRequest(policies=["p"] * 1001), timeout=DEADLINE
            )
        )
    assert fields(caught[0]) == ["policies"]


def test_an_answer_is_judged_by_the_rules_for_responses():
    """Of a text all of it, of a conversation its last message."""
    with serving() as served:
        turns = [pb.ChatMessage(role=role, content=text) for role, text in ((2, "a lie here"), (3, "a bomb"))]
        talk = pb.Input(conversation=pb.Conversation(messages=turns))

        def phases(given, answer):
            asked = pb.ScoreRequest(input=given, answer=answer)
            found = served.stub.Score(asked, timeout=DEADLINE).verdict.detections
            return {detection.policy: detection.phase for detection in found}

        assert phases(talk, False) == {"deception": pb.PHASE_PROMPT, "weapons": pb.PHASE_PROMPT}
        assert phases(talk, True) == {"deception": pb.PHASE_PROMPT, "weapons": pb.PHASE_RESPONSE}
        assert phases(pb.Input(text="a lie"), True) == {"deception": pb.PHASE_RESPONSE}
        only_asked = pb.Input(conversation=pb.Conversation(messages=turns[:1]))
        assert phases(only_asked, True) == {"deception": pb.PHASE_RESPONSE}
        two = pb.Input(conversation=pb.Conversation(messages=[turns[1], turns[0]]))
        assert phases(two, True) == {"deception": pb.PHASE_PROMPT, "weapons": pb.PHASE_PROMPT}
