"""Chats in the form of the OpenAI API, as a monitor reads them: what is asked, and texts that are written.

What of them is text is told as in the guard (`monitor.guard.openai_texts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from monitor.client.pieces import TextPiece
from monitor.guard import openai_texts
from monitor.guard.openai_texts import RequestText

Message = Any
"""A message of a chat, as a mapping with a role and a content, or an object of a client library."""
_OF_CLIENT = ("extra_headers", "extra_query", "extra_body", "timeout")
"""What `create` of the `openai` client takes besides fields of the request."""


_LONGEST_PART = 64
"""Characters of a part's name; a server may call its fields anything."""


def body(messages: Sequence[Message], request: Mapping[str, Any]) -> dict[str, Any]:
    """The request that the `openai` client makes of what its `create` is given."""
    fields = {name: value for name, value in request.items() if name not in _OF_CLIENT}
    found = {"messages": list(messages)} | fields | dict(request.get("extra_body") or {})
    return found | {"messages": [as_mapping(message) for message in found["messages"]]}


def asked(request: Mapping[str, Any]) -> RequestText:
    """The turns of a chat that is asked with this body, and the calls of tools in it.

    Descriptions of tools and the like are the operator's.
    """
    return openai_texts.chat(request)


def written(delta: Any) -> Iterator[TextPiece]:
    """The texts in a piece of an answer, or in a whole one: a `delta` or `message`, as an object or a mapping."""
    if delta is None:
        return
    found = openai_texts.answer({"delta": as_mapping(delta)})
    if found.unread:
        yield TextPiece("", unread=found.unread)
    for one in found.texts:
        part = "" if one.place == "content" else one.place[:_LONGEST_PART]
        yield TextPiece(one.text, part, call=one.call[:_LONGEST_PART])


def as_mapping(found: Any) -> Mapping[str, Any]:
    """An object of a client library, or of JSON, as a mapping."""
    if isinstance(found, Mapping):
        return found
    dump = getattr(found, "model_dump", None)
    if dump is None:
        raise TypeError(f"{type(found).__name__} is no message or answer of the OpenAI API; give a mapping")
    # Without complaints of a library about types that it does not know yet.
    content: Mapping[str, Any] = dump(warnings=False)
    return content
