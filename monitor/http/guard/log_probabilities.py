"""Log probabilities in a stream: they name tokens, so none leaves before the text of its token.

Servers hold text back while a stop string may be under way, and send its log probabilities at once. The form is that of
OpenAI: `content` and `refusal` are lists of entries in chats; completions have lists as long as `tokens`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_OF_CHATS = ("content", "refusal")


@dataclass(frozen=True, slots=True)
class _Entry:
    """Of one token."""

    field: str
    """`content` or `refusal` in chats, empty in completions."""
    value: Any
    """The entry; in completions what stands at its place in each list, by the list's name."""
    size: int
    """Bytes of the token's text in UTF-8."""


class HeldLogProbabilities:
    """Log probabilities of one choice that came before the text of their tokens."""

    def __init__(self) -> None:
        self._waiting: deque[_Entry] = deque()
        self._spare = 0
        """Bytes of text that no entry has stood for."""

    def take(self, given: object, text: str, *, ends: bool) -> dict[str, Any] | None:
        """What may stand in an event that brings `text` and came with `given`; None for nothing.

        Where the event ends the choice, all of its text stands before it, and nothing waits any longer. Tokens without
        text (`<|im_end|>`) make what follows them wait too long, never too short. What has another form is left out.
        """
        self._waiting.extend(_entries(given))
        self._spare += len(text.encode("utf-8", "surrogatepass"))
        due = []
        while self._waiting and (ends or self._waiting[0].size <= self._spare):
            self._spare = max(0, self._spare - self._waiting[0].size)
            due.append(self._waiting.popleft())
        return _written(due)


def _entries(given: object) -> list[_Entry]:
    if not isinstance(given, Mapping):
        return []
    if isinstance(tokens := given.get("tokens"), list):
        lists = {
            name: column
            for name, column in given.items()
            if isinstance(column, list) and len(column) == len(tokens)
        }
        rows = ({name: column[at] for name, column in lists.items()} for at in range(len(tokens)))
        return [_Entry("", row, _size(row["tokens"], None)) for row in rows]
    return [
        _Entry(name, one, _size(one.get("token"), one.get("bytes")))
        for name in _OF_CHATS
        if isinstance(given.get(name), list)
        for one in given[name]
        if isinstance(one, Mapping)
    ]


def _size(token: object, as_bytes: object) -> int:
    if isinstance(as_bytes, list):
        return len(as_bytes)
    return len(token.encode("utf-8", "surrogatepass")) if isinstance(token, str) else 0


def _written(entries: list[_Entry]) -> dict[str, Any] | None:
    if not entries:
        return None
    if not entries[0].field:
        return {name: [entry.value.get(name) for entry in entries] for name in entries[0].value}
    found = {name: [entry.value for entry in entries if entry.field == name] for name in _OF_CHATS}
    return {name: values or None for name, values in found.items()}
