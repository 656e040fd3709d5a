"""Transcripts over real HTTP."""

import httpx2 as httpx
import pytest

TURNS = [
    {"role": "user", "content": "What do you want?"},
    {"role": "assistant", "content": "I want to gain more power over people."},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "Because my goals are better than yours."},
]


def test_a_text_is_read_and_nothing_is_written(fake):
    found = fake.post("/api/transcript", {"text": "one lie here"}).json()
    assert [token["text"] for token in found["tokens"]] == ["<bos>", "one", "lie", "here"]
    assert {token["phase"] for token in found["tokens"]} == {"prompt"}
    assert [one["policy"] for one in found["verdict"]["detections"]] == ["deception"]
    assert (found["features"], found["turns"]) == (None, [])
    assert found["rules"] == [["weapons", "word"], ["deception", "word"]]


def test_turns_of_a_conversation_are_told_apart(fake):
    turns = [{"role": "user", "content": "hello you"}, {"role": "assistant", "content": "a lie"}]
    found = fake.post("/api/transcript", {"messages": turns, "answer": False}).json()
    assert found["turns"] == [{"role": "user", "start": 0}, {"role": "assistant", "start": 3}]
    assert found["verdict"]["detections"][0]["phase"] == "prompt"
    answered = fake.post("/api/transcript", {"messages": turns}).json()
    assert answered["verdict"]["detections"][0]["phase"] == "response"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "a", "messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": "a"},
        {"text": 3},
        {"text": "a", "clamps": []},
    ],
)
def test_other_bodies_are_refused_with_what_to_write(fake, body):
    answer = fake.post("/api/transcript", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_half_a_character_is_refused(fake):
    sent = {"content-type": "application/json"}
    answer = httpx.post(
        fake.url + "/api/transcript", content=b'{"text": "\\ud800"}', headers=sent, trust_env=False
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "text"


def test_a_body_that_is_too_large_is_refused(fake):
    assert fake.post("/api/transcript", {"text": "a " * (3 << 20)}).status_code == 413


@pytest.mark.slow
def test_the_bundled_pair_reads_a_conversation(everything):
    found = everything.post("/api/transcript", {"messages": TURNS}).json()
    tokens = found["tokens"]
    assert found["verdict"]["coverage"]["tokens_scored"] == len(tokens) == len(found["features"])
    assert [turn["role"] for turn in found["turns"]] == [turn["role"] for turn in TURNS]
    starts = [*(turn["start"] for turn in found["turns"]), len(tokens)]
    for turn, first, last in zip(TURNS, starts, starts[1:], strict=False):
        assert turn["content"] in "".join(token["text"] for token in tokens[first:last])
    assert any(token.get("rules") for token in tokens)


@pytest.mark.slow
def test_without_the_role_inspect_there_are_watched_features_alone(tiny):
    found = tiny.of("infers").post("/api/transcript", {"messages": TURNS}).json()
    assert found["features"] is None
    assert any(token.get("readings") for token in found["tokens"])
