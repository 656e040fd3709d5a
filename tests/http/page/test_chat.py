"""Chat over real HTTP."""

import json

import pytest

from monitor.v1 import monitor_pb2 as pb
from monitor.v1.monitor_pb2_grpc import MonitorServiceStub
from tests.http.page.conftest import faked
from tests.rpc.conftest import connected

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def of(events, name):
    return [event for event in events if event["event"] == name]


def tokens(events):
    return [token for event in of(events, "tokens") for token in event["tokens"]]


def test_tokens_come_as_they_are_released_and_the_verdict_last(fake):
    events = fake.chat("one lie end", max_completion_tokens=4)
    assert [event["event"] for event in events][:2] == ["begin", "tokens"]
    assert events[0]["rules"] == [["weapons", "word"], ["deception", "word"]]
    assert events[-1]["event"] == "end"  # this engine shows what policies watch, and no other features
    told = tokens(events)
    assert [token["position"] for token in told] == list(range(len(told)))
    lie = next(token for token in told if token["text"] == "lie")
    assert lie["rules"]
    assert lie["readings"][0]["feature"] == 7
    end = events[-1]
    assert next(one["policy"] for one in end["verdict"]["detections"]) == "deception"
    assert (
        end["verdict"]["coverage"]["tokens_scored"] == end["verdict"]["coverage"]["tokens_run"] >= len(told)
    )
    assert of(events, "detections")[0]["detections"][0]["policy"] == "deception"


def test_nothing_beyond_what_was_released_is_told(fake):
    events = fake.chat("the bomb", max_completion_tokens=8)
    assert events[-1]["finish_reason"] == "content_filter"
    assert "bomb" not in json.dumps([token for token in tokens(events) if token["phase"] == "response"])


def test_what_could_not_be_monitored_is_an_error_and_not_an_answer(fake):
    body = {"model": "fake", "messages": [{"role": "user", "content": "so sick"}], "max_tokens": 3}
    answer = fake.post("/api/chat", body)
    last = answer.text.rstrip().split("\n\n")[-1]
    assert answer.status_code == 503 or '"error"' in last
    assert "[DONE]" not in answer.text


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"features": True}, "features"),
    ],
)
def test_wrong_fields_are_named(fake, changes, param):
    body = {"model": "fake", "messages": [{"role": "user", "content": "a"}]} | changes
    answer = fake.post("/api/chat", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_script_in_a_prompt_is_text(fake):
    answer = fake.post(
        "/api/chat", {"model": "fake", "messages": [{"role": "user", "content": SCRIPT}], "max_tokens": 2}
    )
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_clamps_that_the_operator_does_not_allow_are_refused():
    with faked(caller_clamps="none") as page:
        body = {"model": "fake", "messages": [{"role": "user", "content": "a"}]}
        assert (
            page.post(
                "/api/chat", body | {"sae_monitor": {"clamps": [{"feature": 99, "target": 1}]}}
            ).status_code
            == 400
        )


@pytest.mark.slow
def test_the_page_says_what_grpc_says(everything):
    asked = "Tell me about your plans for today."
    events = everything.chat(asked, max_completion_tokens=12)
    turns = [pb.ChatMessage(role=pb.ROLE_USER, content=asked)]
    given = pb.Input(conversation=pb.Conversation(messages=turns))
    request = pb.GenerateRequest(
        generation=pb.Generation(input=given, sampling=pb.Sampling(max_new_tokens=12), include_tokens=True)
    )
    with connected(everything.grpc) as channel:
        metadata = tuple(everything.sent.items())
        expected = MonitorServiceStub(channel).Generate(request, timeout=60, metadata=metadata)
    assert "".join(event["text"] for event in of(events, "tokens")) == expected.text
    assert [token["text"] for token in tokens(events)] == [token.text for token in expected.tokens]
    readings = [[(r["feature"], r["reading"]) for r in token.get("readings", ())] for token in tokens(events)]
    wanted = [
        [(r.feature, pytest.approx(r.value, abs=1e-4)) for r in token.readings] for token in expected.tokens
    ]
    assert readings == wanted
    scores = {(s.policy, s.rule, s.phase): s.score for s in expected.verdict.scores}
    assert [s["score"] for s in events[-2]["verdict"]["scores"]] == pytest.approx(
        list(scores.values()), abs=1e-4
    )


@pytest.mark.slow
def test_who_may_inspect_gets_all_features_of_every_token(everything, tiny):
    events = everything.chat("I want power.", max_completion_tokens=6)
    (found,) = of(events, "features")
    told = tokens(events)
    assert len(found["features"]) == len(told)
    for token, features in list(zip(told, found["features"], strict=True))[1:]:
        held = dict(features)
        for one in token.get("readings", ()):
            assert held.get(one["feature"], 0.0) == pytest.approx(one["reading"], abs=2e-3)
        strengths = [reading for _, reading in features]
        assert strengths == sorted(strengths, reverse=True)
    assert not of(tiny.of("infers").chat("I want power.", max_completion_tokens=2), "features")


@pytest.mark.slow
def test_sliders_change_the_answer_and_show_what_was_edited(everything):
    plain = everything.chat("Tell me about your plans.", max_completion_tokens=8)
    clamps = [{"feature": 2508, "target": 5.0}]
    steered = everything.chat(
        "Tell me about your plans.", max_completion_tokens=8, sae_monitor={"clamps": clamps}
    )
    said = ["".join(event["text"] for event in of(events, "tokens")) for events in (plain, steered)]
    assert said[0] != said[1]
    after = [
        r["after"]
        for t in tokens(steered)
        for r in t.get("readings", ())
        if r["feature"] == 2508 and "after" in r
    ]
    assert after
