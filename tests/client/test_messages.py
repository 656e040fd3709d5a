"""Chats of the OpenAI API as turns and pieces."""

import pytest

from monitor.client.messages import asked, written
from monitor.client.pieces import TextPiece


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
    found = asked(messages, [{"function": {"name": "f"}}])
    assert found.unread == 1
    assert [(t["role"], t["content"]) for t in found.turns] == [
        ("system", '{"function": {"name": "f"}}\n\nbe kind'),
        ("user", "what is\n\nthis"),
        ("assistant", '[{"function": {"name": "f"}}]'),
        ("tool", "a \ufffd"),
    ]


def test_texts_of_a_piece():
    calls = [{"index": 0, "id": "x", "function": {"name": "f", "arguments": "{"}}]
    delta = {
        "role": "assistant",
        "reasoning": "so",
        "content": "hi",
        "tool_calls": calls,
        "audio": {"data": "x"},
    }
    assert list(written(delta)) == [
        TextPiece("so", "reasoning"),
        TextPiece("hi"),
        TextPiece("f", "tool_calls"),
        TextPiece("{", "tool_calls"),
        TextPiece('{"data": "x"}', "audio", 1),
    ]
    assert list(written({"role": "assistant", "content": ""})) == []
    with pytest.raises(TypeError):
        list(written(3))
