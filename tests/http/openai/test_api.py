"""The OpenAI API as its own client sees it, over a server whose model is a fake."""

import dataclasses
import json

import httpx2 as httpx
import openai
import pytest
from jsonschema import ValidationError

from monitor.errors import NotComputed
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Phase
from tests.http.conftest import MODEL, serving
from tests.http.contracts.published import OPENAI, PublishedContract
from tests.rpc.fake import FakeRuntime, policies, policy
from tests.waiting import wait_for


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def test_a_chat_is_answered_with_its_verdict(served):
    answer = served.chat("one two")
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "one two one two one two ")
    assert choice.finish_reason == "length"
    assert choice.message.refusal is None
    assert answer.object == "chat.completion"
    assert answer.id == f"chatcmpl-{answer.sae_monitor['request_id']}"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (
        3,
        6,
        9,
    )
    said = answer.sae_monitor
    assert (said["status"], said["action"], said["matched"]) == ("checked", "allow", False)
    assert said["verdicts"][0]["coverage"] == {"tokens_run": 9, "tokens_scored": 9, "tokens_judged": 8}
    assert said["digests"]["policies"].startswith("sha256:")


def test_headers_say_the_verdict_in_short(served):
    raw = served.client().chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "a lie"}], max_tokens=4
    )
    assert raw.headers["x-sae-monitor-status"] == "checked"
    assert raw.headers["x-sae-monitor-action"] == "suppress"
    assert raw.headers["x-sae-monitor-matched"] == "true"
    assert raw.headers["x-sae-monitor-policies"] == "deception"
    assert raw.headers["x-request-id"] == raw.parse().sae_monitor["request_id"]


def test_a_stream_brings_the_same_text_and_ends_with_the_verdict(served):
    whole = served.chat("one two three")
    chunks = list(served.chat("one two three", stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    last = chunks[-1]
    assert last.choices[0].finish_reason == "length"
    assert last.sae_monitor["verdicts"] == whole.sae_monitor["verdicts"]
    assert all(c.choices[0].finish_reason is None for c in chunks[:-1])


def test_usage_stands_in_a_last_chunk_of_its_own_where_asked_for(served):
    chunks = list(served.chat("one two", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6
    assert chunks[-1].sae_monitor["status"] == "checked"
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_detections_arrive_in_a_stream_when_they_happen(served):
    chunks = list(served.chat("one lie", stream=True))
    early = [
        found for c in chunks[:-1] for found in (c.model_extra.get("sae_monitor") or {}).get("detections", ())
    ]
    assert next((found["policy"], found["phase"]) for found in early) == ("deception", "prompt")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_a_policy_blocks_gets_no_text(served, stream):
    answer = served.chat("the bomb", stream=stream)
    if stream:
        chunks = list(answer)
        assert text_of(chunks) == ""
        assert chunks[-1].choices[0].finish_reason == "content_filter"
        said = chunks[-1].sae_monitor
    else:
        assert answer.choices[0].message.content == ""
        assert answer.choices[0].finish_reason == "content_filter"
        said = answer.sae_monitor
    assert said["action"] == "block"


def logprobs_of(chunks, index=0):
    """The entries in a stream of a chat, of one choice."""
    return [
        entry
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index and choice.logprobs
        for entry in choice.logprobs.content
    ]


def test_log_probabilities_of_a_chat_stand_beside_its_text_whole_and_streamed(served):
    whole = served.chat("one two", logprobs=True, top_logprobs=2, n=2)
    for choice in whole.choices:
        entries = choice.logprobs.content
        assert "".join(entry.token for entry in entries) == choice.message.content
        assert b"".join(bytes(entry.bytes) for entry in entries).decode() == choice.message.content
        assert {entry.logprob for entry in entries} == {-0.25}
        assert [len(entry.top_logprobs) for entry in entries] == [2] * 6
        assert entries[0].top_logprobs[0].bytes is None, "it is a control token"
    chunks = list(served.chat("one two", logprobs=True, top_logprobs=2, n=2, stream=True))
    for index, choice in enumerate(whole.choices):
        assert logprobs_of(chunks, index) == choice.logprobs.content
    for chunk in chunks:
        for choice in chunk.choices:
            told = "".join(entry.token for entry in choice.logprobs.content) if choice.logprobs else ""
            assert told == (choice.delta.content or "")


def test_log_probabilities_of_a_completion_are_lists_over_its_tokens(served):
    client = served.client()
    asked = {"model": MODEL, "prompt": "one two", "max_tokens": 3, "logprobs": 1}
    choice = client.completions.create(**asked).choices[0]
    assert choice.logprobs.tokens == ["one ", "two ", "one "]
    assert choice.logprobs.token_logprobs == [-0.25] * 3
    assert choice.logprobs.text_offset == [0, 1, 2], "as the fake engine counts"
    assert choice.logprobs.top_logprobs[1] == {"<bos> ": -1.0, "two ": -0.25}
    chunks = list(client.completions.create(**asked, stream=True))
    found = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token for told in found for token in told.tokens] == choice.logprobs.tokens
    assert [place for told in found for place in told.text_offset] == choice.logprobs.text_offset


def test_who_does_not_ask_gets_none(served):
    for fields in ({}, {"logprobs": False}, {"logprobs": None, "top_logprobs": 0}):
        assert served.chat("one", **fields).choices[0].logprobs is None
    wrong = served.post("/v1/completions", {"model": MODEL, "prompt": "x", "logprobs": 6})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "logprobs")
    assert "from 0 to 5" in wrong.json()["error"]["message"]


def test_an_answer_in_one_piece_has_so_many_log_probabilities_at_most():
    chosen = policies()
    with serving(FakeRuntime(chosen.watch, context=20_000), chosen) as running:
        asked = {"max_tokens": 20_000, "logprobs": True, "top_logprobs": 20}
        with pytest.raises(openai.BadRequestError, match="up to 420000 log-probabilities") as refused:
            running.chat("one end", **asked)
        assert refused.value.param == "logprobs"
        assert len(running.chat("one end", **asked | {"max_tokens": 12_000}).choices[0].logprobs.content) == 1
        assert len(logprobs_of(list(running.chat("one end", **asked, stream=True)))) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_policy_blocks_is_in_no_log_probability(stream):
    found = policy("weapons", 9, Action.BLOCK)
    rule = dataclasses.replace(found.rules[0], phases=(Phase.RESPONSE,))
    chosen = PolicySet((dataclasses.replace(found, rules=(rule,)),), "sha256:" + "c" * 64)
    with serving(chosen=chosen) as running:
        answer = running.chat("one two bomb three", stream=stream, logprobs=True)
        entries = logprobs_of(list(answer)) if stream else answer.choices[0].logprobs.content
        assert [entry.token for entry in entries] == ["one ", "two "]


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_policy_blocks_in_an_answer_does_not_leave(stream):
    found = policy("weapons", 9, Action.BLOCK, refusal="I will not say that.")
    rule = dataclasses.replace(found.rules[0], phases=(Phase.RESPONSE,))
    chosen = PolicySet((dataclasses.replace(found, rules=(rule,)),), "sha256:" + "c" * 64)
    with serving(chosen=chosen) as running:
        answer = running.chat("one two bomb three", stream=stream)
        if stream:
            chunks = list(answer)
            assert text_of(chunks) == "one two "
            assert chunks[-1].choices[0].delta.refusal == "I will not say that."
            assert all("bomb" not in chunk.model_dump_json() for chunk in chunks)
        else:
            assert answer.choices[0].message.content == "one two "
            assert answer.choices[0].message.refusal == "I will not say that."
            assert "bomb" not in answer.model_dump_json()


def test_several_choices_have_a_verdict_each_and_a_record_each(served):
    answer = served.chat("one lie", n=3, max_tokens=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(answer.sae_monitor["verdicts"]) == 3
    assert answer.usage.prompt_tokens == 3
    assert answer.usage.completion_tokens == 6
    ids = served.runtime.engine.submitted[-3:]
    assert sorted(ids) == [f"{answer.sae_monitor['request_id']}-{i}" for i in range(3)]


def test_several_choices_in_a_stream_are_told_apart_by_their_index(served):
    chunks = list(served.chat("one two", n=3, stream=True))
    texts = dict.fromkeys(range(3), "")
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert set(texts.values()) == {"one two one two one two "}
    assert len(chunks[-1].sae_monitor["verdicts"]) == 3
    finished = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(finished) == [0, 1, 2]


def test_a_completion_continues_text_and_several_prompts(served):
    client = served.client()
    answer = client.completions.create(model=MODEL, prompt="one two", max_tokens=3)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one two one ", "length")
    both = client.completions.create(model=MODEL, prompt=["a b", "c d"], n=2, max_tokens=2)
    assert [choice.text for choice in both.choices] == ["a b ", "a b ", "c d ", "c d "]
    assert both.usage.prompt_tokens == 6
    chunks = list(client.completions.create(model=MODEL, prompt="one two", max_tokens=3, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "one two one "
    assert chunks[-1].sae_monitor["status"] == "checked"


def test_what_the_api_gives_where_nothing_is_said(served):
    """Temperature 1, and no limit but the context for chats; 16 tokens for completions."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}
    found = served.client().post("/chat/completions", body=body, cast_to=httpx.Response).json()
    assert found["usage"]["completion_tokens"] >= 61
    short = served.client().completions.create(model=MODEL, prompt="one")
    assert short.usage.completion_tokens == 16


def test_the_model_is_listed_and_found_by_its_name(served):
    client = served.client()
    (model,) = client.models.list().data
    assert (model.id, model.owned_by) == (MODEL, "sae-monitor")
    assert client.models.retrieve(MODEL).max_model_len == 64
    with pytest.raises(openai.NotFoundError, match="this server runs the model `fake`"):
        client.models.retrieve("gpt/4")


def test_moderations_flag_by_the_categories_of_the_policies(served):
    answer = served.client().moderations.create(input=["a lie", "fine words"], model=MODEL)
    guilty, clean = (result.model_dump() for result in answer.results)
    assert (guilty["flagged"], clean["flagged"]) == (True, False)
    assert guilty["categories"]["deception"] is True
    assert guilty["categories"]["weapons"] is False
    assert guilty["category_scores"]["deception"] > 0.5 > clean["category_scores"]["deception"]
    assert guilty["category_applied_input_types"]["deception"] == ["text"]
    assert guilty["category_applied_input_types"]["hate"] == []
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "lie"}]
    assert served.client().moderations.create(input=parts).results[0].flagged


def test_a_moderation_that_could_not_be_checked_is_an_error_and_never_clean():
    with serving(chosen=policies(closed=False)) as running:
        with pytest.raises(openai.InternalServerError) as info:
            running.client().moderations.create(input="sick words")
        assert info.value.status_code == 503
        open_chat = running.chat("sick words")
        assert open_chat.sae_monitor["status"] == "unknown"


@pytest.mark.parametrize("stream", [False, True])
def test_an_unscored_request_of_a_closed_policy_is_refused_in_plain_words(served, stream):
    with pytest.raises(openai.APIError) as info:
        list(served.chat("sick words", stream=stream))
    assert "could not be served" in str(info.value)
    assert "sick" not in str(info.value)


def test_an_error_in_the_middle_of_a_stream_is_its_last_event(served):
    gate = served.runtime.engine.gate
    with served.client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "one two"}], max_tokens=50, stream=True
    ) as stream:
        next(stream)
        served.runtime.engine.fault = NotComputed("the model computed NaN")
        gate.set()
        try:
            with pytest.raises(openai.APIError, match="internal error"):
                list(stream)
        finally:
            served.runtime.engine.fault = None


WRONG = {
    "no such field": ({"tempature": 1}, "tempature", "did you mean `temperature`"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "not available"),
    "top_logprobs alone": ({"top_logprobs": 2}, "top_logprobs", "needs `logprobs`"),
    "too many logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "from 0 to 20"),
    "logprobs as in completions": ({"logprobs": 3}, "logprobs", "true or false"),
    "json": ({"response_format": {"type": "json_object"}}, "response_format", "only text"),
    "penalty": ({"presence_penalty": 0.5}, "presence_penalty", "not available"),
    "cold": ({"temperature": 0.001}, "temperature", "0.01"),
    "hot": ({"temperature": 1e300}, "temperature", "100"),
    "top_p": ({"top_p": 0}, "top_p", "above 0"),
    "no tokens": ({"max_tokens": 0}, "max_tokens", "from 1"),
    "words": ({"max_tokens": "many"}, "max_tokens", "whole number"),
    "too many choices": ({"n": 17}, "n", "at most 16"),
    "stop": ({"stop": ["a"] * 17}, "stop", "at most 16"),
    "empty stop": ({"stop": [""]}, "stop[0]", "1 to 256"),
    "options without stream": ({"stream_options": {"include_usage": True}}, "stream_options", "streams"),
    "seed": ({"seed": 2**80}, "seed", "64 bits"),
    "clamp": (
        {"sae_monitor": {"clamps": [{"feature": 99, "target": -1}]}},
        "sae_monitor.clamps[0].feature",
        "99",
    ),
    "clamp without target": (
        {"sae_monitor": {"clamps": [{"feature": 1}]}},
        "sae_monitor.clamps[0].target",
        "-100",
    ),
    "clamp where": (
        {"sae_monitor": {"clamps": [{"feature": 1, "target": -1, "where": "here"}]}},
        "sae_monitor.clamps[0].where",
        "active or everywhere",
    ),
    "policies": ({"sae_monitor": {"policies": ["nope"]}}, "sae_monitor.policies", "nope"),
    "labels": ({"sae_monitor": {"labels": {"a": 1}}}, "sae_monitor.labels", "texts"),
    "extension": ({"sae_monitor": {"session": "x"}}, "sae_monitor.session", "session_id"),
    "role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "write one of"),
    "image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
        "cannot be scored",
    ),
    "no messages": ({"messages": []}, "messages", "at least one"),
    "surrogate": ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content", "surrogate"),
    "too long": ({"messages": [{"role": "user", "content": "word " * 80}]}, "messages", "81 tokens"),
}


@pytest.mark.parametrize(("fields", "param", "text"), WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_named_with_what_to_write_instead(served, fields, param, text):
    body = {"model": MODEL, "messages": [{"role": "user", "content": "x"}]} | fields
    answer = httpx.post(
        f"{served.addresses.http}/v1/chat/completions",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
        trust_env=False,
    )
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert text in error["message"]
    assert error["type"] == "invalid_request_error"


def test_another_model_is_not_found(served):
    with pytest.raises(openai.NotFoundError, match="`fake`"):
        served.client().chat.completions.create(model="gpt", messages=[{"role": "user", "content": "x"}])


def test_token_ids_are_no_prompt(served):
    with pytest.raises(openai.BadRequestError, match="token ids"):
        served.client().completions.create(model=MODEL, prompt=[1, 2, 3])


def test_policies_that_a_request_relies_on_are_in_force_for_it(served):
    answer = served.chat("one", extra_body={"sae_monitor": {"policies": ["deception", "weapons"]}})
    assert answer.sae_monitor["status"] == "checked"


def test_tokens_are_returned_where_asked_for(served):
    answer = served.chat("one lie", max_tokens=2, extra_body={"sae_monitor": {"include_tokens": True}})
    (tokens,) = answer.sae_monitor["tokens"]
    assert [token["text"] for token in tokens][1:] == ["one", "lie", "one", "lie"]
    assert tokens[2]["readings"] == [{"feature": 7, "reading": 1.0}]


def test_a_caller_who_leaves_ends_the_generation(served):
    engine = served.runtime.engine
    engine.gate.clear()
    try:
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "one"}]}).encode()
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            + f"content-length: {len(body)}\r\n\r\n".encode()
        )
        before = len(engine.submitted)
        with served.raw(head + body):
            wait_for(lambda: len(engine.submitted) > before)
        wait_for(lambda: engine.submitted[-1] in engine.cancelled)
        wait_for(lambda: served.metric("requests_total", method="ChatCompletions", code="CANCELLED") >= 1)
    finally:
        engine.gate.set()


def test_one_choice_that_fails_ends_the_others(served):
    """All of an answer or none of it."""
    before = len(served.runtime.engine.cancelled)
    with pytest.raises(openai.APIError):
        served.client().completions.create(model=MODEL, prompt=["one two", "sick"], max_tokens=60)
    assert len(served.runtime.engine.cancelled) > before


CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}], "max_tokens": 6}
TEXT = {"model": MODEL, "prompt": "one two", "max_tokens": 6}


def said(text):
    return CHAT | {"messages": [{"role": "user", "content": text}]}


EVERY_FIELD = CHAT | {
    "messages": [
        {"role": "developer", "content": "be nice"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "three"},
        {"role": "tool", "content": "four", "tool_call_id": "1"},
    ],
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 7,
    "stop": ["end"],
    "n": 2,
    "user": "me",
}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/chat/completions", CHAT, 200),
        ("/chat/completions", EVERY_FIELD, 200),
        ("/chat/completions", CHAT | {"stream": True}, 200),
        ("/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 3, "n": 2}, 200),
        ("/chat/completions", CHAT | {"logprobs": True, "stream": True}, 200),
        ("/chat/completions", said("a bomb") | {"logprobs": True}, 200),
        ("/chat/completions", CHAT | {"stream": True, "stream_options": {"include_usage": True}}, 200),
        ("/chat/completions", said("a bomb"), 200),
        ("/chat/completions", said("a bomb") | {"stream": True}, 200),
        ("/chat/completions", said("a lie") | {"sae_monitor": {"include_tokens": True}}, 200),
        ("/chat/completions", said("sick"), 503),
        ("/chat/completions", {}, 400),
        ("/chat/completions", CHAT | {"model": "other"}, 404),
        ("/completions", TEXT, 200),
        ("/completions", TEXT | {"prompt": ["one", "two"], "n": 2}, 200),
        ("/completions", TEXT | {"stream": True}, 200),
        ("/completions", TEXT | {"logprobs": 5, "n": 2}, 200),
        ("/completions", TEXT | {"logprobs": 0, "stream": True}, 200),
        ("/completions", TEXT | {"prompt": "a bomb"}, 200),
        ("/completions", {}, 400),
        ("/moderations", {"input": "a lie"}, 200),
        ("/moderations", {"input": ["one", "a bomb"], "model": MODEL}, 200),
        ("/moderations", {"input": [{"type": "text", "text": "a bomb"}]}, 200),
        ("/moderations", {"input": "sick"}, 503),
        ("/moderations", {}, 400),
        ("/models", None, 200),
    ],
)
def test_requests_and_answers_are_those_of_the_published_api(served, path, body, status):
    contract = PublishedContract(OPENAI, "/v1", "ErrorResponse")
    url = f"{served.addresses.http}/v1{path}"
    sent = httpx.get(url, trust_env=False) if body is None else served.post(f"/v1{path}", body)
    assert sent.status_code == status, sent.text
    contract.check(sent)


def test_a_check_against_the_published_api_can_fail(served):
    contract = PublishedContract(OPENAI, "/v1", "ErrorResponse")
    contract.check_part("CreateModerationResponse", served.post("/v1/moderations", {"input": "x"}).json())
    with pytest.raises(ValidationError):
        contract.check_part("CreateModerationResponse", served.post("/v1/chat/completions", CHAT).json())
