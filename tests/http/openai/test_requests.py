"""Requests of the OpenAI API, read into records."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from monitor.errors import BadRequest, NotFound
from monitor.http.openai import requests
from monitor.records import Clamp, ErrorTerm, Sampling, Where


def chat(**fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields
    return requests.chat(body, "m", 100)


def test_what_nothing_says_is_as_the_api_has_it():
    (spec,) = chat().specs
    assert spec.sampling == Sampling(max_new_tokens=100, temperature=1.0)
    assert spec.input.content == [{"role": "user", "content": "hi"}]
    (short,) = requests.completion({"model": "m", "prompt": "hi"}, "m").specs
    assert (short.sampling.max_new_tokens, short.input.content) == (16, "hi")


def test_every_field_of_sampling_arrives():
    (spec,) = chat(max_completion_tokens=5, temperature=0.5, top_p=0.9, top_k=40, seed=-3, stop="end").specs
    assert spec.sampling == Sampling(5, 0.5, 40, 0.9, -3, ("end",))
    assert chat(top_k=-1).specs[0].sampling.top_k == 0
    assert chat(max_tokens=7).specs[0].sampling.max_new_tokens == 7


def test_choices_have_seeds_of_their_own():
    assert [spec.sampling.seed for spec in chat(n=3, seed=5).specs] == [5, 6, 7]
    assert [spec.sampling.seed for spec in chat(n=2, seed=2**63 - 1).specs] == [2**63 - 1, -(2**63)]
    assert [spec.sampling.seed for spec in chat(n=2).specs] == [None, None]


def test_roles_and_parts_become_turns():
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "yes", "refusal": None, "tool_calls": []},
        {"role": "tool", "content": "42", "tool_call_id": "x"},
    ]
    assert chat(messages=messages).specs[0].input.content == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "yes"},
        {"role": "tool", "content": "42"},
    ]


def test_the_extension_arrives():
    asked = {
        "clamps": [{"feature": 3, "target": -2, "where": "everywhere", "error_term": "drop"}],
        "policies": ["a"],
        "session_id": "s",
        "labels": {"team": "x"},
        "truncate": True,
        "include_tokens": True,
    }
    (spec,) = chat(sae_monitor=asked).specs
    assert spec.clamps == (Clamp(3, -2.0, Where.EVERYWHERE, ErrorTerm.DROP),)
    assert spec.include_tokens
    given = spec.input
    assert (given.session, given.labels, given.truncate) == ("s", {"team": "x"}, True)
    assert given.relies_on == {"a"}


@pytest.mark.parametrize(
    ("target", "where"), [(4, Where.EVERYWHERE), (0, Where.ACTIVE), (-2, Where.ACTIVE), (-0.0, Where.ACTIVE)]
)
def test_amplifying_edits_every_token_unless_told_otherwise(target, where):
    clamp = {"feature": 3, "target": target}
    assert chat(sae_monitor={"clamps": [clamp]}).specs[0].clamps == (Clamp(3, target, where),)
    told = chat(sae_monitor={"clamps": [clamp | {"where": "active"}]})
    assert told.specs[0].clamps == (Clamp(3, target, Where.ACTIVE),)


def test_fields_that_ask_nothing_of_a_model_are_let_pass():
    chat(user="u", store=False, metadata={}, tools=[], tool_choice="none", logprobs=False, logit_bias={})


def test_all_wrong_fields_are_named_at_once():
    with pytest.raises(BadRequest) as info:
        chat(n=0, seed="x", top_p=2, frobnicate=1)
    assert {v.field for v in info.value.violations} == {"n", "seed", "top_p", "frobnicate"}


def test_prompts_of_a_completion():
    found = requests.completion({"model": "m", "prompt": ["a", "b"], "n": 2}, "m")
    assert (found.prompts, found.choices_per_prompt) == (2, 2)
    assert [spec.input.content for spec in found.specs] == ["a", "a", "b", "b"]
    for wrong in ([], "", [""], [[1]], None, ["a"] * 17):
        with pytest.raises(BadRequest):
            requests.completion({"model": "m", "prompt": wrong}, "m")


def test_moderations_read_texts_and_parts():
    assert [i.content for i in requests.moderation({"input": ["a", "b"]}, "m").inputs] == ["a", "b"]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert [i.content for i in requests.moderation({"input": parts}, "m").inputs] == ["a\nb"]
    with pytest.raises(NotFound):
        requests.moderation({"input": "a", "model": "omni"}, "m")
    with pytest.raises(BadRequest, match="nothing to clamp"):
        requests.moderation({"input": "a", "sae_monitor": {"clamps": [{"feature": 1, "target": 0}]}}, "m")


NAMES = some.sampled_from(
    [
        "model",
        "messages",
        "prompt",
        "input",
        "n",
        "seed",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "max_tokens",
        "top_k",
        "sae_monitor",
        "clamps",
        "feature",
        "target",
        "labels",
        "role",
        "content",
        "type",
        "text",
        "tools",
        "response_format",
        "logit_bias",
        "session_id",
        "policies",
        "include_usage",
    ]
)
LEAVES = (
    some.none()
    | some.booleans()
    | some.integers(-(2**70), 2**70)
    | some.floats(allow_nan=False)
    | some.text(max_size=8)
    | some.sampled_from(["m", "user", "text", "active"])
)
VALUES = some.recursive(
    LEAVES, lambda inner: some.lists(inner, max_size=4) | some.dictionaries(NAMES, inner, max_size=5)
)


@settings(max_examples=300, deadline=None)
@given(some.dictionaries(NAMES, VALUES, max_size=8), some.booleans())
def test_whatever_a_body_holds_it_is_read_or_refused_with_names(body, named):
    """Nothing but the two errors that callers see, however the body is built."""
    body = body | ({"model": "m"} if named else {})
    for read in (
        lambda: requests.chat(body, "m", 100),
        lambda: requests.completion(body, "m"),
        lambda: requests.moderation(body, "m"),
    ):
        with contextlib.suppress(BadRequest, NotFound):
            read()
