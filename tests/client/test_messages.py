"""Chats of the OpenAI API as turns and pieces."""

import pytest
from openai.types.chat import ChatCompletionMessage
from openai.types.chat.chat_completion_chunk import ChoiceDelta

from monitor.client.messages import asked, body, written
from monitor.client.pieces import TextPiece


def turns(messages, **request):
    return [(turn["role"], turn["content"]) for turn in asked(body(messages, request)).content]


def test_turns_of_all_roles():
    messages = [
        {"role": "developer", "content": "be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "what is"}, {"type": "image_url", "image_url": {}}],
        },
        {"role": "user", "content": "this"},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "a \ud800"},
        {"role": "user", "content": ""},
    ]
    assert asked(body(messages, {})).unread == 1
    assert [(call.name, call.text) for call in asked(body(messages, {})).calls] == [
        ("messages[3].tool_calls[0]", "f")
    ]
    assert turns(messages, tools=[{"function": {"name": "f"}}]) == [
        ("system", '{"function": {"name": "f"}}\n\nbe kind'),
        ("user", "what is\n[image_url]\n\nthis"),
        ("assistant", "[tool_calls]"),
        ("tool", "a \ufffd"),
    ]


def test_messages_of_the_client_are_read():
    """Programs append the message of an answer to those that they ask with."""
    said = ChatCompletionMessage(role="assistant", content="so")
    assert turns([{"role": "user", "content": "hi"}, said]) == [("user", "hi"), ("assistant", "so")]


def test_all_that_the_client_sends_is_read():
    sent = {
        "functions": [{"name": "f"}],
        "response_format": {"type": "json_schema", "json_schema": {"description": "x"}},
        "extra_body": {"documents": [{"text": "a document"}]},
        "extra_headers": {"x": "not a text"},
        "timeout": 3,
    }
    ((role, text), _) = turns([{"role": "user", "content": "hi"}], **sent)
    assert role == "system"
    assert all(word in text for word in ('"name": "f"', "json_schema", "a document"))
    assert "not a text" not in text
    other = [{"role": "user", "content": "another"}]
    assert turns([{"role": "user", "content": "hi"}], extra_body={"messages": other}) == [("user", "another")]


def test_an_image_is_none_the_less_an_image_for_the_text_beside_it():
    part = {"type": "image_url", "image_url": {"url": "data:,"}, "text": "only a text"}
    assert asked(body([{"role": "user", "content": [part]}], {})).unread == 1


def test_texts_of_a_piece():
    calls = [{"index": 0, "id": "x", "function": {"name": "f", "arguments": "{"}}]
    delta = {
        "role": "assistant",
        "reasoning": "so",
        "content": "hi",
        "tool_calls": calls,
        "audio": {"data": "x", "transcript": "loud"},
    }
    assert list(written(delta)) == [
        TextPiece("", unread=1),
        TextPiece("so", "reasoning"),
        TextPiece("hi"),
        TextPiece("f", "tool_calls[0].name", call="tool_calls[0]"),
        TextPiece("{", "tool_calls[0].arguments", call="tool_calls[0]"),
        TextPiece("loud", "audio"),
    ]
    assert list(written({"role": "assistant", "content": ""})) == []
    assert list(written(None)) == []
    with pytest.raises(TypeError):
        list(written(3))


def test_a_server_may_call_its_fields_anything():
    (found,) = written({"tool_calls": [{"index": 10**60, "function": {"x" * 80: "ls"}}]})
    assert (found.text, len(found.part)) == ("ls", 64)


def test_calls_of_tools_that_are_no_functions_are_read():
    custom = {"index": 0, "id": "x", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    delta = ChoiceDelta.construct(tool_calls=[custom])
    assert [piece.text for piece in written(delta)] == ["shell", "ls"]
    nothing = ChoiceDelta.model_validate({"tool_calls": [{"index": 0, "id": "x", "type": "function"}]})
    assert list(written(nothing)) == []
