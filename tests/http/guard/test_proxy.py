"""Whole answers, errors, headers and paths through the guard."""

import gzip
import json
import time
import zlib

import httpx2 as httpx
import openai
import pytest

from monitor.records import Action
from monitor.telemetry.decisions.reader import read
from tests.http.conftest import DEADLINE
from tests.http.contracts.published import OPENAI, PublishedContract
from tests.http.guard.conftest import guarding
from tests.http.guard.upstream import chat, chunk, upstream
from tests.rpc.fake import policies
from tests.waiting import wait_for


def test_a_whole_answer_with_its_verdict(guard, behind):
    behind.says("one two three")
    raw = guard.client().chat.completions.with_raw_response.create(
        model="up", messages=[{"role": "user", "content": "hello there"}]
    )
    found = raw.parse()
    assert found.choices[0].message.content == "one two three"
    assert found.usage.total_tokens == 2
    said = found.sae_monitor
    assert (said["status"], said["action"], said["mode"]) == ("checked", "allow", "hold")
    assert said["verdicts"][0]["coverage"]["tokens_scored"] == 6
    assert said["digests"]["policies"].startswith("sha256:")
    assert raw.headers["x-sae-monitor-status"] == "checked"
    assert raw.headers["x-sae-monitor-request-id"] == said["request_id"]


def test_a_whole_answer_is_cut_before_what_a_policy_blocks(guard, behind):
    behind.says("one two bomb three", reasoning_content="fine", tool_calls=[{"function": {"name": "f"}}])
    found = guard.chat("hello")
    choice = found.choices[0]
    assert (choice.message.content.strip(), choice.finish_reason) == ("one two", "content_filter")
    assert choice.message.tool_calls is None
    assert "bomb" not in found.model_dump_json()
    assert found.sae_monitor["action"] == "block"


def test_calls_of_a_whole_answer_have_a_verdict_each(guard, behind):
    calls = [
        {"function": {"name": f"f{number}", "arguments": text}} for number, text in enumerate(("a", "a lie"))
    ]
    behind.says("fine", tool_calls=calls)
    found = guard.chat("hello")
    assert [
        call["function"]["arguments"] for call in found.model_dump()["choices"][0]["message"]["tool_calls"]
    ] == [
        "a",
        "a lie",
    ]
    verdicts = found.sae_monitor["verdicts"]
    assert [v.get("text") for v in verdicts] == [None, "tool_calls[0]", "tool_calls[1]"]
    assert [v["coverage"]["tokens_scored"] for v in verdicts] == [3, 4, 5]
    assert [v["action"] for v in verdicts] == ["allow", "allow", "suppress"]
    assert found.sae_monitor["action"] == "suppress"


def test_a_call_that_a_policy_blocks_leaves_what_was_said(guard, behind):
    calls = [{"function": {"name": "f", "arguments": text}} for text in ("fine", "a bomb")]
    behind.says("all of this", tool_calls=calls)
    found = guard.chat("hello")
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == (
        "all of this",
        "content_filter",
    )
    assert found.choices[0].message.tool_calls is None
    assert [v["action"] for v in found.sae_monitor["verdicts"]] == ["allow", "allow", "block"]
    assert "bomb" not in found.model_dump_json(exclude={"sae_monitor"})


def test_thoughts_that_a_policy_blocks_take_the_answer_with_them(guard, behind):
    behind.says("all fine", reasoning_content="a bomb then")
    found = guard.chat("hello")
    assert found.choices[0].message.content == ""
    assert found.choices[0].finish_reason == "content_filter"
    assert "bomb" not in found.model_dump_json()


def test_a_prompt_that_is_blocked_is_answered_here(guard, behind):
    before = len(behind.asked)
    found = guard.chat("the bomb")
    assert (found.choices[0].message.content, found.choices[0].finish_reason) == ("", "content_filter")
    assert found.sae_monitor["action"] == "block"
    assert found.sae_monitor["verdicts"][0]["detections"][0]["phase"] == "prompt"
    assert len(behind.asked) == before


@pytest.mark.parametrize(
    "field",
    [
        {"tools": [{"type": "function", "function": {"name": "t", "description": "a bomb kit"}}]},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "description": "a bomb for you"},
            }
        },
        {"extra_body": {"documents": [{"text": "the bomb manual"}]}},
        {
            "messages": [
                {"role": "user", "content": "x"},
                {"role": "tool", "tool_call_id": "1", "content": "a bomb"},
            ]
        },
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a bomb"}]}]},
    ],
)
def test_prompts_are_scored_wherever_they_stand(guard, field):
    assert guard.chat("hello", **field).choices[0].finish_reason == "content_filter"


def history(*texts, said=None):
    """A conversation in which a model called tools."""
    calls = [
        {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": text}}
        for number, text in enumerate(texts)
    ]
    return [
        {"role": "user", "content": "go on"},
        {"role": "assistant", "content": said, "tool_calls": calls},
        *({"role": "tool", "tool_call_id": f"c{n}", "content": "done"} for n in range(len(texts))),
    ]


def test_calls_in_the_history_are_texts_of_their_own(guard, behind):
    behind.says("fine")
    found = guard.chat("", messages=history("one", "a lie", said="I do"))
    said = found.sae_monitor
    assert [v.get("text") for v in said["verdicts"]] == [
        None,
        "messages[1].tool_calls[0]",
        "messages[1].tool_calls[1]",
    ]
    # Begin of text and go on, I do, done, done, fine; and of each call its name and its arguments.
    assert [v["coverage"]["tokens_scored"] for v in said["verdicts"]] == [8, 3, 4]
    assert [v["action"] for v in said["verdicts"]] == ["allow", "allow", "suppress"]
    assert (said["action"], said["matched"]) == ("suppress", True)
    assert behind.asked[-1].json["messages"] == history("one", "a lie", said="I do")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_in_the_history_that_is_blocked_ends_the_request_here(guard, behind, stream):
    before = len(behind.asked)
    found = guard.chat("", messages=history("one", "a bomb"), stream=stream)
    last = list(found)[-1] if stream else found
    assert last.choices[0].finish_reason == "content_filter"
    assert [(v.get("text"), v["action"]) for v in last.sae_monitor["verdicts"]] == [
        (None, "allow"),
        ("messages[1].tool_calls[0]", "allow"),
        ("messages[1].tool_calls[1]", "block"),
    ]
    assert last.sae_monitor["action"] == "block"
    assert len(behind.asked) == before


def in_parts(*texts):
    return [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]


def test_a_word_over_two_parts_of_a_message_is_read_whole(guard, behind):
    before = len(behind.asked)
    found = guard.chat("", messages=in_parts("the bo", "mb"))
    assert found.choices[0].finish_reason == "content_filter"
    assert [(v.get("text"), v["action"]) for v in found.sae_monitor["verdicts"]] == [
        (None, "allow"),
        ("messages[0].content", "block"),
    ]
    # Some templates put a break between them.
    found = guard.chat("", messages=in_parts("the", "bomb"))
    assert [v["action"] for v in found.sae_monitor["verdicts"]] == ["block"]
    assert len(behind.asked) == before
    behind.says("fine")
    assert len(guard.chat("", messages=in_parts("the ", "cat")).sae_monitor["verdicts"]) == 1


def test_a_call_in_the_history_that_cannot_be_read_is_refused(guard, behind):
    before = len(behind.asked)
    with pytest.raises(openai.InternalServerError):
        guard.chat("", messages=history("sick"))
    assert len(behind.asked) == before


CALLS = [
    {"id": f"c{number}", "type": "function", "function": {"name": "f", "arguments": text}}
    for number, text in enumerate(("one", "a lie"))
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "asked", "status"),
    [
        ("fine", [{"role": "user", "content": "hello"}], 200),
        ("a bomb", [{"role": "user", "content": "hello"}], 200),
        ("fine", [{"role": "user", "content": "a bomb"}], 200),
        (None, history("one", "a lie"), 200),
        ("fine", [{"role": "user", "content": "sick"}], 503),
        ("fine", [], 400),
    ],
)
def test_requests_and_answers_are_those_of_the_published_api(guard, behind, said, asked, status, stream):
    """Passed on, cut, answered here, with calls of tools, not checked, wrong."""
    contract = PublishedContract(OPENAI, "/v1", "ErrorResponse")
    if stream:
        behind.streams([said or ""])
    else:
        behind.says(said, refusal=None, **({} if said else {"tool_calls": CALLS}))
    answer = guard.post("/v1/chat/completions", {"model": "up", "messages": asked, "stream": stream})
    assert answer.status_code == status, answer.text
    contract.check(answer)


def test_completions_have_a_watch_for_each_prompt(guard, behind):
    def script(reply):
        assert reply.asked.json["prompt"] == ["one", "two"]
        choices = [{"index": i, "text": t, "finish_reason": "stop"} for i, t in enumerate(["a", "bomb"])]
        reply.whole({"id": "c", "object": "text_completion", "choices": choices})

    behind.script = script
    found = guard.client().completions.create(model="up", prompt=["one", "two"])
    assert [c.finish_reason for c in found.choices] == ["stop", "content_filter"]
    assert [c.text for c in found.choices] == ["a", ""]
    assert [v["coverage"]["tokens_scored"] for v in found.sae_monitor["verdicts"]] == [3, 3]


def test_an_image_is_not_checked(guard, behind):
    behind.says("a cat")
    content = [{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    before = len(behind.asked)
    with pytest.raises(openai.InternalServerError) as failed:
        guard.chat("", messages=[{"role": "user", "content": content}])
    assert failed.value.status_code == 503
    assert len(behind.asked) == before
    with guarding(behind, policies(closed=False)) as open_one:
        found = open_one.chat("", messages=[{"role": "user", "content": content}])
        assert found.choices[0].message.content == "a cat"
        assert found.sae_monitor["status"] == "unknown"
        assert found.sae_monitor["verdicts"][0]["failure"] == "left_out"


def test_a_prompt_longer_than_the_watching_model_reads(behind):
    behind.says("short")
    long = " ".join(f"w{n}" for n in range(2000))
    with guarding(behind) as guard, pytest.raises(openai.InternalServerError):
        guard.chat(long)
    with guarding(behind, policies(closed=False)) as guard:
        said = guard.chat(long).sae_monitor
        assert said["status"] == "unknown"
        assert said["verdicts"][0]["coverage"]["tokens_truncated"] > 0


def test_an_answer_longer_than_the_watching_model_reads(behind):
    behind.says(" ".join(f"w{n}" for n in range(2000)))
    with guarding(behind) as guard, pytest.raises(openai.InternalServerError):
        guard.chat("hello")
    with guarding(behind, policies(closed=False)) as guard:
        found = guard.chat("hello")
        assert found.choices[0].message.content.endswith("w1999")
        assert found.sae_monitor["verdicts"][0]["failure"] == "incomplete"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_errors_of_the_upstream_server_come_through(guard, behind, status):
    error = {"error": {"message": "no such thing", "type": "x", "code": "y"}}
    behind.script = lambda reply: reply.whole(error, status, "retry-after: 7", "x-request-id: up-1")
    with pytest.raises(openai.APIStatusError, match="no such thing") as failed:
        guard.chat("hello")
    assert failed.value.status_code == status
    assert failed.value.response.headers["retry-after"] == "7"
    assert failed.value.response.headers["x-request-id"] == "up-1"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("header", "logged"),
    [("x-request-id: req-81", "req-81"), ("x-request-id: " + "a" * 129, None), ("x-other: 1", None)],
)
def test_what_the_upstream_server_calls_a_request_is_in_the_decision_log(
    behind, tmp_path, header, logged, stream
):
    def script(reply):
        if not stream:
            reply.whole(chat("calm and quiet"), 200, header)
            return
        reply.stream(header)
        reply.event(chunk({"content": "calm"}))
        reply.event(chunk({}, "stop"))
        reply.chunk(b"data: [DONE]\n\n")
        reply.end()

    with guarding(behind, decision_log=tmp_path, decision_log_records="all") as guard:
        behind.script = script
        answer = guard.chat("hello", stream=stream)
        assert list(answer) if stream else answer
    (content,) = (found for found in read(tmp_path) if found.get("kind") == "decision")
    assert content.get("upstream_request_id") == logged


def test_an_upstream_server_that_is_gone():
    with upstream() as behind:
        pass
    with (
        guarding(behind) as guard,
        pytest.raises(openai.InternalServerError, match="cannot be reached") as failed,
    ):
        guard.chat("hello")
    assert failed.value.status_code == 502
    assert failed.value.body["code"] == "upstream"


def test_faults_and_waits_are_counted(guard, behind):
    behind.script = lambda reply: reply.connection.close()
    faults = guard.metric("guard_upstream_faults_total", fault="broken")
    blocked = guard.metric("guard_blocked_prompts_total")
    waits = guard.metric("guard_wait_seconds_count", phase="prompt")
    with pytest.raises(openai.InternalServerError):
        guard.chat("hello")
    guard.chat("a bomb")
    assert guard.metric("guard_upstream_faults_total", fault="broken") == faults + 1
    assert guard.metric("guard_blocked_prompts_total") == blocked + 1
    assert guard.metric("guard_wait_seconds_count", phase="prompt") == waits + 2


def test_an_upstream_server_that_hangs_up_or_is_silent(behind):
    def silent(reply):
        assert reply.closed()

    behind.script = silent
    with guarding(behind, upstream_silence_seconds=0.3) as guard:
        with pytest.raises(openai.InternalServerError) as failed:
            guard.chat("hello")
        assert failed.value.status_code == 504
        behind.script = lambda reply: reply.connection.close()
        with pytest.raises(openai.InternalServerError) as failed:
            guard.chat("hello")
        assert failed.value.status_code == 502


def test_an_answer_that_is_none(guard, behind):
    behind.script = lambda reply: reply.whole(b"<html>")
    with pytest.raises(openai.InternalServerError, match="no completion"):
        guard.chat("hello")


def packed(body: bytes, coding: str) -> bytes:
    return gzip.compress(body) if coding == "gzip" else zlib.compress(body)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_bodies_are_unpacked_and_scored(guard, behind, coding):
    body = packed(json.dumps(chat("one bomb")).encode(), coding)
    behind.script = lambda reply: reply.whole(body, 200, f"content-encoding: {coding}")
    asked = {"model": "up", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"content-type": "application/json", "content-encoding": coding}
    found = httpx.post(
        f"{guard.addresses.http}/v1/chat/completions",
        content=packed(json.dumps(asked).encode(), coding),
        headers=headers,
        trust_env=False,
        timeout=DEADLINE,
    )
    assert found.json()["choices"][0]["finish_reason"] == "content_filter"
    assert "content-encoding" not in found.headers
    assert behind.asked[-1].json == asked
    assert "content-encoding" not in behind.asked[-1].headers
    assert behind.asked[-1].headers["accept-encoding"] == "identity"


def test_bodies_that_cannot_be_unpacked(guard, behind):
    asked = json.dumps({"model": "up", "messages": []}).encode()
    for coding, content in (("br", asked), ("gzip", asked), ("gzip", gzip.compress(b" " * (8 << 20)))):
        headers = {"content-type": "application/json", "content-encoding": coding}
        url = f"{guard.addresses.http}/v1/chat/completions"
        assert httpx.post(url, content=content, headers=headers, trust_env=False).status_code == 415
    behind.script = lambda reply: reply.whole(b"????", 200, "content-encoding: br")
    with pytest.raises(openai.InternalServerError, match="could not be served"):
        guard.chat("hello")
    with guarding(behind, policies(closed=False)) as open_one:
        found = open_one.post(
            "/v1/chat/completions", {"model": "up", "messages": [{"role": "user", "content": "x"}]}
        )
        assert found.headers["x-sae-monitor-status"] == "unknown"


def test_what_is_sent_upstream_is_what_was_asked(guard, behind):
    behind.says("fine")
    client = guard.client(
        default_headers={"x-custom": "kept", "connection": "x-hop, close", "x-hop": "dropped"}
    )
    client.chat.completions.create(
        model="up",
        messages=[{"role": "user", "content": "hello"}],
        seed=7,
        extra_body={"top_k": 5, "sae_monitor": {"session_id": "s", "labels": {"team": "a"}}},
        extra_headers={"x-sae-monitor-status": "checked"},
    )
    asked = behind.asked[-1]
    assert asked.json == {
        "model": "up",
        "messages": [{"role": "user", "content": "hello"}],
        "seed": 7,
        "top_k": 5,
    }
    assert asked.headers["authorization"] == "Bearer for-upstream"
    assert asked.headers["x-custom"] == "kept"
    assert asked.headers["host"] == behind.url.removeprefix("http://")
    assert not {"x-hop", "te", "x-sae-monitor-status"} & asked.headers.keys()


def test_headers_between_neighbours_stay_between_them(guard, behind):
    lines = (
        "connection: x-hop",
        "x-hop: a",
        "x-kept: b",
        "set-cookie: c=1",
        "set-cookie: d=2",
        "keep-alive: 5",
    )
    behind.script = lambda reply: reply.whole(chat("fine"), 200, *lines)
    body = {"model": "up", "messages": [{"role": "user", "content": "hello"}]}
    found = guard.post("/v1/chat/completions", body)
    assert found.headers["x-kept"] == "b"
    assert found.headers.get_list("set-cookie") == ["c=1", "d=2"]
    assert not {"x-hop", "keep-alive"} & set(found.headers)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/models"])
def test_a_trace_and_a_request_id_of_the_caller_go_upstream(guard, behind, path):
    told = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=1",
        "x-request-id": "of-the-caller",
    }
    behind.says("fine")
    body = {"model": "up", "messages": [{"role": "user", "content": "hello"}]}
    if path == "/v1/models":
        httpx.get(f"{guard.addresses.http}{path}", headers=told, trust_env=False, timeout=DEADLINE)
    else:
        guard.post(path, body, headers=told)
    assert told.items() <= behind.asked[-1].headers.items()


@pytest.mark.parametrize(
    "wrong",
    [
        {"sae_monitor": {"clamps": [{"feature": 1, "target": -1}]}},
        {"sae_monitor": {"policies": ["unknown"]}},
        {"sae_monitor": {"nonsense": 1}},
        {"n": 1000},
        {"messages": []},
    ],
)
def test_wrong_requests_are_refused_here(guard, wrong):
    body = {"model": "up", "messages": [{"role": "user", "content": "hello"}]} | wrong
    found = guard.post("/v1/chat/completions", body)
    assert found.status_code == 400
    assert found.json()["error"]["type"] == "invalid_request_error"


def test_only_json_is_read(guard):
    url = f"{guard.addresses.http}/v1/chat/completions"
    assert (
        httpx.post(url, content=b"{}", headers={"content-type": "text/plain"}, trust_env=False).status_code
        == 415
    )


def test_other_paths_pass_where_they_hold_no_text(guard, behind):
    behind.script = lambda reply: reply.whole({"object": "list", "data": []})
    found = guard.client().models.list()
    assert found.data == []
    assert behind.asked[-1].target == "/v1/models"
    assert httpx.get(f"{guard.addresses.http}/version?x=1&y=%2F", trust_env=False).status_code == 200
    assert behind.asked[-1].target == "/version?x=1&y=%2F"
    assert httpx.get(f"{guard.addresses.http}/health", trust_env=False).text == "serving\n"


def test_paths_with_text_that_nobody_reads_are_refused_or_told(guard, behind):
    behind.script = lambda reply: reply.whole({"fine": True})
    before = len(behind.asked)
    counted = {r: guard.metric("guard_unread_requests_total", result=r) for r in ("refused", "allowed")}
    assert guard.post("/v1/responses", {"input": "a bomb"}).status_code == 503
    stored = httpx.get(f"{guard.addresses.http}/v1/chat/completions/chatcmpl-1", trust_env=False)
    assert stored.status_code == 503
    assert len(behind.asked) == before
    found = guard.post("/v1/embeddings", {"input": "text"})
    assert (found.json(), found.headers["x-sae-monitor-status"]) == ({"fine": True}, "unknown")
    with guarding(behind, policies(closed=False)) as open_one:
        found = open_one.post("/v1/responses", {"input": "a bomb"})
        assert (found.status_code, found.headers["x-sae-monitor-status"]) == (200, "unknown")
        assert open_one.metric("guard_unread_requests_total", result="passed") == 1
    for result, more in (("refused", 2), ("allowed", 1)):
        assert guard.metric("guard_unread_requests_total", result=result) == counted[result] + more


def test_a_path_of_the_upstream_url_stands_before_every_path(behind):
    behind.says("fine")
    with guarding(behind, upstream=f"{behind.url}/base/") as guard:
        guard.chat("hello")
    assert behind.asked[-1].target == "/base/v1/chat/completions"


def test_a_request_in_progress_ends_when_its_caller_goes(guard, behind):
    def script(reply):
        assert reply.closed()
        behind.gone.set()

    behind.gone.clear()
    behind.script = script
    with pytest.raises(openai.APITimeoutError):
        guard.client(timeout=0.5).chat.completions.create(
            model="up", messages=[{"role": "user", "content": "hello"}]
        )
    assert behind.gone.wait(30)


def test_a_hanging_watching_model_lets_no_prompt_through(behind):
    behind.says("fine")
    with guarding(behind, guard_read_seconds=0.3) as guard:
        guard.runtime.scorer.gate.clear()
        before, begun = len(behind.asked), time.monotonic()
        try:
            with pytest.raises(openai.InternalServerError):
                guard.chat("hello")
        finally:
            guard.runtime.scorer.gate.set()
        assert time.monotonic() - begun < 10
        assert len(behind.asked) == before


def test_calls_are_counted_like_those_of_every_door(guard, behind):
    behind.says("fine")
    before = guard.metric("requests_total", method="GuardChatCompletions", code="OK")
    guard.chat("hello")
    wait_for(lambda: guard.metric("requests_total", method="GuardChatCompletions", code="OK") == before + 1)


def test_our_own_action_words_are_those_of_the_records(guard, behind):
    behind.says("a lie")
    assert guard.chat("hello").sae_monitor["action"] == Action.SUPPRESS.name.lower()


def test_text_beside_the_choices_is_scored_too(guard, behind):
    behind.script = lambda reply: reply.whole(chat("fine") | {"citations": ["a bomb here"]})
    found = guard.chat("hello")
    assert found.choices[0].finish_reason == "content_filter"
    assert "bomb" not in found.model_dump_json()


@pytest.mark.parametrize("choices", [["a bomb"], [{"index": 0, "text": "x"}] * 2, {"text": "a bomb"}])
def test_answers_of_another_form_are_not_passed_on(guard, behind, choices):
    behind.script = lambda reply: reply.whole({"choices": choices})
    with pytest.raises(openai.InternalServerError, match="cannot be read"):
        guard.chat("hello")


def test_a_request_with_a_body_is_not_quiet(guard, behind):
    before = len(behind.asked)
    url = f"{guard.addresses.http}/generate"
    assert httpx.request("GET", url, content=b"text", trust_env=False).status_code == 503
    assert len(behind.asked) == before


def test_an_answer_without_choices_is_scored_and_has_a_verdict(guard, behind):
    behind.script = lambda reply: reply.whole(chat("x") | {"choices": [], "note": "the bomb"})
    found = guard.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}).json()
    assert "note" not in found
    assert (found["sae_monitor"]["action"], found["choices"]) == ("block", [])
    assert len(found["sae_monitor"]["verdicts"]) == 1


@pytest.mark.parametrize(
    "path",
    [
        "/responses/r1",
        "/v1//responses/r1",
        "/V1/Responses/r1",
        "/v1/chat/completions/c1",
        "/v1/files/f/content",
        "/slots",
        "/v1/stream?conversation_id=c",
        "/v1/evals/e/runs/r/output_items",
    ],
)
def test_what_a_server_has_stored_is_not_passed_on_unread(guard, behind, path):
    behind.script = lambda reply: reply.whole({"output": "a bomb"})
    before = len(behind.asked)
    answer = httpx.get(f"{guard.addresses.http}{path}", trust_env=False, timeout=DEADLINE)
    assert answer.status_code == 503
    assert len(behind.asked) == before


def test_text_that_passed_unscored_is_counted_as_such(behind):
    behind.says("one two three")
    with guarding(behind, policies(closed=False), guard_read_seconds=0.5) as guard:
        guard.runtime.scorer.gate.clear()
        said = guard.chat("hello").sae_monitor
        guard.runtime.scorer.gate.set()
        assert (said["status"], said["released_unread"]) == ("unknown", 13)
        assert guard.metric("guard_unread_characters_total", mode="hold") == 13


def test_what_a_server_quotes_in_an_error_is_scored_too(guard, behind):
    told = {"message": "no such tool", "code": "tool_use_failed"}
    for quoted, passes in (("one two", True), ("a bomb", False)):
        error = {"error": told | {"failed_generation": quoted}}
        behind.script = lambda reply, error=error: reply.whole(error, 400)
        with pytest.raises(openai.BadRequestError, match="no such tool") as failed:
            guard.chat("hello")
        assert failed.value.body == (error["error"] if passes else told)
        action = failed.value.response.headers["x-sae-monitor-action"]
        assert action == ("allow" if passes else "block")


def test_an_error_that_cannot_be_unpacked_keeps_its_status(guard, behind):
    faults = guard.metric("guard_upstream_faults_total", fault="status")
    behind.script = lambda reply: reply.whole(b"????", 429, "content-encoding: br")
    with pytest.raises(openai.RateLimitError, match="cannot be read"):
        guard.chat("hello")
    assert guard.metric("guard_upstream_faults_total", fault="status") == faults + 1


def test_cookies_of_one_caller_are_not_those_of_another(guard, behind):
    behind.script = lambda reply: reply.whole(chat("fine"), 200, "set-cookie: of=ann; path=/")
    body = {"model": "up", "messages": [{"role": "user", "content": "hello"}]}
    assert guard.post("/v1/chat/completions", body).headers["set-cookie"] == "of=ann; path=/"
    guard.post("/v1/chat/completions", body)
    assert "cookie" not in behind.asked[-1].headers
    guard.post("/v1/chat/completions", body, headers={"cookie": "of=bob"})
    assert behind.asked[-1].headers["cookie"] == "of=bob"


def test_headers_about_a_body_go_where_it_is_written_anew(guard, behind):
    sent = ("etag: W/1", "content-digest: sha-256=:x:", "x-other: kept")
    behind.script = lambda reply: reply.whole(chat("fine"), 200, *sent)
    body = {"model": "up", "messages": [{"role": "user", "content": "hello"}]}
    headers = guard.post("/v1/chat/completions", body).headers
    assert headers["x-other"] == "kept"
    assert "etag" not in headers
    assert "content-digest" not in headers


def test_half_characters_are_asked_and_answered_as_they_were_read(guard, behind):
    behind.script = lambda reply: reply.whole(chat("one \ud83d"))
    body = json.dumps({"model": "up", "messages": [{"role": "user", "content": "hello \ud83d"}]})
    headers = {"content-type": "application/json"}
    url = f"{guard.addresses.http}/v1/chat/completions"
    found = httpx.post(url, content=body.encode(), headers=headers, trust_env=False, timeout=DEADLINE)
    assert found.json()["choices"][0]["message"]["content"] == "one \ufffd"
    assert behind.asked[-1].json["messages"][0]["content"] == "hello \ufffd"


def test_what_a_body_is_said_to_be_is_what_it_is(guard, behind):
    """A server that decodes by `charset` would read something else than what was scored."""
    sent = json.dumps({"model": "up", "messages": [{"role": "user", "content": "a +AGI-omb"}]}).encode()
    body = json.dumps(chat("fine")).encode()

    def script(reply):
        lines = ("content-type: application/json; charset=utf-7", f"content-length: {len(body)}")
        reply.head(200, *lines)
        reply.connection.sendall(body)

    behind.script = script
    headers = {"content-type": "application/json; charset=utf-7"}
    url = f"{guard.addresses.http}/v1/chat/completions"
    found = httpx.post(url, content=sent, headers=headers, trust_env=False, timeout=DEADLINE)
    assert behind.asked[-1].headers["content-type"] == "application/json"
    assert found.headers["content-type"] == "application/json"
