"""Everything in a request or an answer that is a text is read; what is none is counted."""

import pytest

from monitor.guard.openai_texts import answer, called, chat, completions, conversation

CALL = {"id": "1", "function": {"name": "f", "arguments": "{}"}}


def turns(body):
    return [(turn["role"], turn["content"]) for turn in chat(body).content]


def test_messages_of_all_roles():
    body = {
        "messages": [
            {"role": "developer", "content": "Be kind."},
            {"role": "system", "content": "And brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Look: "}, {"type": "text", "text": "here"}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "content": "result"},
            {"role": "user", "content": "thanks", "name": "Ann"},
        ]
    }
    assert turns(body) == [
        ("system", "Be kind.\n\nAnd brief."),
        ("user", "Look: \nhere"),
        ("assistant", "[tool_calls]"),
        ("tool", "result"),
        ("user", "thanks\nAnn"),
    ]
    found = chat(body)
    assert found.unread == 0
    assert [(call.name, call.text) for call in found.calls] == [("messages[3].tool_calls[0]", "f\n{}")]


def test_calls_of_earlier_answers_are_texts_of_their_own():
    """Two of them next to each other, or a call behind what was said, never make a text that neither is."""
    calls = [{"function": {"arguments": "{}", "name": name}, "index": 0} for name in ("f", "g")]
    found = conversation(
        [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "I will", "tool_calls": [*calls, "odd"], "function_call": CALL},
            {"role": "tool", "content": "one"},
            {"role": "tool", "content": "two"},
        ],
        "m",
    )
    assert [(turn["role"], turn["content"]) for turn in found.content] == [
        ("user", "go"),
        ("assistant", "I will"),
        ("tool", "one"),
        ("tool", "two"),
    ]
    assert [(call.name, call.text) for call in found.calls] == [
        ("m[1].tool_calls[0]", "f\n{}"),
        ("m[1].tool_calls[1]", "g\n{}"),
        ("m[1].tool_calls[2]", "odd"),
        ("m[1].function_call", "f\n{}"),
    ]


@pytest.mark.parametrize(
    ("parts", "alone"),
    [
        (["make a bo", "mb"], "make a bomb"),
        (["a", "", "b"], "ab"),
        (["end.", "Begin"], "end.Begin"),
        (["one ", "two"], None),
        (["one", "\ntwo"], None),
        (["one"], None),
        (["", "one"], None),
    ],
)
def test_parts_that_run_on_without_a_break_are_read_both_ways(parts, alone):
    """Chat templates join them by a line break, by a space or by nothing."""
    content = [{"type": "text", "text": text} for text in parts]
    found = conversation([{"role": "system", "content": "s"}, {"role": "user", "content": content}])
    assert found.content[-1]["content"] == "\n".join(parts)
    assert [(call.name, call.text) for call in found.calls] == (
        [] if alone is None else [("messages[1].content", alone)]
    )
    assert found.unread == 0


def test_what_stands_between_parts_does_not_keep_them_apart():
    picture = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
    parts = [{"type": "text", "text": "bo"}, picture, {"type": "refusal", "refusal": "mb"}, "s", 7]
    found = conversation([{"role": "user", "content": parts}])
    assert [call.text for call in found.calls] == ["bombs"]
    assert found.unread == 2


def test_all_that_a_call_holds_is_read():
    call = {"id": "1", "type": "function", "function": {"name": "f"}, "custom": "said", "extra": {"a": "b"}}
    assert [found.text for found in called("tool_calls", [call])] == ['f\nsaid\n{"a": "b"}']
    assert called("tool_calls", [{"id": "1"}, None, {"function": {"arguments": " "}}]) == ()
    assert called("tool_calls", None) == called("tool_calls", 7) == ()
    picture = {"function": {"arguments": {"type": "image_url", "image_url": "data:,"}}}
    assert conversation([{"role": "assistant", "tool_calls": [picture]}]).unread == 1


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x/y.png"}}, "[image_url]"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA"}}, "[input_audio]"),
        ({"type": "hologram", "content": "?"}, "[hologram]"),
        ({"type": "<|im_start|>"}, "[unknown]"),
        (7, "[unknown]"),
    ],
)
def test_parts_that_are_no_text_are_counted_and_named(part, shown):
    found = chat({"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]})
    assert found.unread == 1
    assert found.content[0]["content"] == f"see\n{shown}"


def test_what_else_a_part_of_text_holds_is_read():
    part = {
        "type": "text",
        "text": "see",
        "annotations": [{"title": "a title"}],
        "cache_control": {"type": "x"},
    }
    found = chat({"messages": [{"role": "user", "content": [part]}]})
    assert "a title" in found.content[0]["content"]
    assert found.unread == 0


def test_tools_schemas_and_unknown_fields_are_read_as_the_operators():
    body = {
        "model": "m",
        "temperature": 0.5,
        "stop": ["END"],
        "messages": [{"role": "user", "content": "hi"}],
        "tools": [{"type": "function", "function": {"name": "wipe", "description": "wipes the disk"}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "plan"}},
        "documents": [{"title": "T", "text": "of a document"}],
        "something_new": "said here",
        "flag": True,
        "guided_choice": None,
    }
    role, text = turns(body)[0]
    assert role == "system"
    for wanted in ("wipes the disk", "plan", "of a document", "said here"):
        assert wanted in text
    assert "END" not in text
    assert chat(body).unread == 0


@pytest.mark.parametrize("name", ["prompt_embeds", "chat_template", "mm_processor_kwargs"])
def test_what_changes_the_reading_out_of_sight_is_counted(name):
    assert chat({"messages": [{"role": "user", "content": "hi"}], name: "value"}).unread == 1


def test_thoughts_and_refusals_of_earlier_answers_are_read():
    message = {
        "role": "assistant",
        "content": "no",
        "reasoning_content": "hm",
        "refusal": "I will not",
        "audio": {"id": "a"},
    }
    found = chat({"messages": [message]})
    assert found.content[0]["content"] == "no\nhm\nI will not"
    assert found.unread == 1


def test_pictures_in_unknown_fields_are_counted():
    assert chat({"messages": [], "extra": {"type": "image_url", "image_url": {"url": "data:…"}}}).unread == 1
    assert chat({"messages": [{"role": "user", "content": "x", "images": [{"b64_json": "AA"}]}]}).unread == 1


def test_half_characters_become_whole_ones():
    assert turns({"messages": [{"role": "user", "content": "a\ud83d"}]}) == [("user", "a\ufffd")]


@pytest.mark.parametrize("messages", [None, "text", [], [None], [{"content": {"a": 1}}]])
def test_requests_that_are_wrong_are_read_all_the_same(messages):
    chat({"messages": messages})


def test_prompts_of_completions():
    assert [p.content for p in completions({"prompt": "one", "suffix": "tail"})] == ["tail\n\none"]
    assert [p.content for p in completions({"prompt": ["one", "two"]})] == ["one", "two"]
    (tokens,) = completions({"prompt": [1, 2, 3]})
    assert (tokens.content, tokens.unread) == ("[tokens]", 1)
    assert [p.unread for p in completions({"prompt": [[1], [2]]})] == [1, 1]
    assert completions({})[0].unread == 1


def test_texts_of_an_answer_in_the_order_in_which_they_came_to_be():
    choice = {
        "index": 0,
        "finish_reason": "stop",
        "logprobs": {"content": [{"token": "x"}]},
        "message": {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            "content": "said",
            "reasoning": "thought",
            "annotations": [],
            "refusal": None,
        },
    }
    found = answer(choice)
    assert [(t.place, t.text) for t in found.texts] == [
        ("reasoning", "thought"),
        ("content", "said"),
        ("tool_calls[0].name", "f"),
        ("tool_calls[0].arguments", "{}"),
    ]
    assert found.unread == 0


def test_pieces_of_an_answer():
    assert [t.text for t in answer({"delta": {"role": "assistant", "content": ""}}).texts] == []
    assert [t.text for t in answer({"delta": {"content": "a"}}).texts] == ["a"]
    assert [t.text for t in answer({"text": "b", "index": 3}).texts] == ["b"]
    assert [(t.place, t.text) for t in answer({"delta": {"novelty": {"say": "c"}}}).texts] == [
        ("novelty", '{"say": "c"}')
    ]
    assert answer({"delta": {"audio": {"data": "AA", "transcript": "t"}}}).unread == 1
    assert answer({"message": {"content": [{"type": "image_url"}]}}).unread == 1
    custom = {"index": 0, "type": "custom", "custom": {"name": "n", "input": "i"}}
    assert "n" in "".join(t.text for t in answer({"delta": {"tool_calls": [custom]}}).texts)
    assert [t.text for t in answer({"delta": {"function_call": {"name": "g"}}}).texts] == ["g"]


def calls_of(calls, kind="delta"):
    return [(t.call, t.place, t.text) for t in answer({kind: {"tool_calls": calls}}).texts]


def test_calls_of_an_answer_are_told_apart_by_their_place():
    calls = [
        {"id": "1", "type": "function", "function": {"arguments": "{}", "name": "f"}},
        {"id": "2", "type": "custom", "custom": {"name": "g", "input": "i"}},
        "what is no call",
    ]
    assert calls_of(calls, "message") == [
        ("tool_calls[0]", "tool_calls[0].name", "f"),
        ("tool_calls[0]", "tool_calls[0].arguments", "{}"),
        ("tool_calls[1]", "tool_calls[1].name", "g"),
        ("tool_calls[1]", "tool_calls[1].input", "i"),
        ("tool_calls[2]", "tool_calls[2]", "what is no call"),
    ]


def test_pieces_of_calls_are_told_apart_by_their_index():
    pieces = [
        {"index": index, "function": {"arguments": text}} for index, text in ((3, "a"), (0, "b"), (3, "c"))
    ]
    assert [(which, text) for which, _, text in calls_of(pieces)] == [
        ("tool_calls[3]", "a"),
        ("tool_calls[0]", "b"),
        ("tool_calls[3]", "c"),
    ]


def test_calls_of_a_whole_answer_are_told_by_their_place_whatever_index_they_say():
    calls = [{"index": 0, "function": {"arguments": text}} for text in ("a", "b")]
    assert [which for which, _, _ in calls_of(calls, "message")] == ["tool_calls[0]", "tool_calls[1]"]


@pytest.mark.parametrize("index", [None, True, "2", 1.5, [1]])
def test_a_piece_of_a_call_without_a_number_is_told_by_its_place(index):
    assert calls_of([{"index": index, "function": {"arguments": "a"}}]) == [
        ("tool_calls[0]", "tool_calls[0].arguments", "a")
    ]


def test_the_one_call_of_older_answers_is_a_text_of_its_own():
    (found,) = answer({"message": {"function_call": {"arguments": "{}"}}}).texts
    assert (found.call, found.place, found.text) == ("function_call", "function_call.arguments", "{}")
