"""Chats in the form of the OpenAI API, as a monitor reads them: turns that are asked, and texts that are written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from monitor.client.pieces import TextPiece, sendable

Message = Mapping[str, Any]
"""A message of a chat, with a role and a content."""
_ROLES = {
    "system": "system",
    "developer": "system",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_NO_TEXT = frozenset(("role", "tool_call_id", "id", "index", "type"))


class AskedTurns(NamedTuple):
    """What a model is asked."""

    turns: list[dict[str, str]]
    unread: int
    """Parts that are no text, such as images."""


def asked(messages: Sequence[Message], tools: Sequence[Any] = ()) -> AskedTurns:
    """The turns of a chat. Descriptions of tools are read as the operator's, who wrote them."""
    turns: list[dict[str, str]] = []
    unread = 0
    described = "\n".join(_as_json(tool) for tool in tools)
    if described:
        turns.append({"role": "system", "content": described})
    for message in messages:
        role = _ROLES.get(str(message.get("role")), "user")
        texts, others = _texts(message)
        unread += others
        text = "\n".join(text for text in texts if text.strip())
        if not text:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{text}"
        else:
            turns.append({"role": role, "content": text})
    return AskedTurns(turns, unread)


def written(delta: Any) -> Iterator[TextPiece]:
    """The texts in a piece of an answer, or in a whole one: a `delta` or `message`, as an object or a mapping."""
    for name, value in as_mapping(delta).items():
        if name in _NO_TEXT or value in (None, "", [], {}):
            continue
        if name in ("tool_calls", "function_call"):
            calls = value if isinstance(value, list) else [value]
            yield from (TextPiece(text, name) for call in calls for text in _called(call))
        elif isinstance(value, str):
            yield TextPiece(sendable(value), "" if name == "content" else name)
        else:
            yield TextPiece(_as_json(value), name, unread=1)


def as_mapping(found: Any) -> Mapping[str, Any]:
    """An object of a client library, or of JSON, as a mapping."""
    if isinstance(found, Mapping):
        return found
    dump = getattr(found, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(found).__name__} is no answer of the OpenAI API")
    content: Mapping[str, Any] = dump()
    return content


def _texts(message: Message) -> tuple[list[str], int]:
    found, unread = [], 0
    content = message.get("content")
    for part in content if isinstance(content, list) else [content]:
        text = part.get("text") if isinstance(part, Mapping) else part
        if isinstance(text, str):
            found.append(sendable(text))
        elif part is not None:
            unread += 1
    for name, value in message.items():
        if name not in (*_NO_TEXT, "content") and value:
            found.append(sendable(value) if isinstance(value, str) else _as_json(value))
    return found, unread


def _called(call: Any) -> Iterator[str]:
    """Name and arguments of a call of a tool, which come in pieces."""
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    for name in ("name", "arguments"):
        if isinstance(part := function.get(name), str) and part:
            yield sendable(part)


def _as_json(value: Any) -> str:
    return sendable(json.dumps(value, ensure_ascii=False, default=str))
