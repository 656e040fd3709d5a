"""Server-sent events, as they come over the wire in chunks of any size."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_END = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")
_LONGEST_END = 4
"""Bytes of the longest of these."""
_LINE = re.compile(rb"\r\n|\n|\r")
DONE = b"[DONE]"
"""Data of the event that ends a stream of the OpenAI API."""


class EventTooLong(ValueError):
    """An event that does not end."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    raw: bytes
    """As it came, with the empty line behind it."""
    data: bytes | None
    """Its data, lines joined; None for comments, by which servers keep a connection open."""
    name: bytes = b""
    """What it is called; most events have no name."""


class EventReader:
    """Takes chunks and gives the events that are complete with them."""

    def __init__(self, longest: int) -> None:
        """`longest`: bytes of an event."""
        self._longest = longest
        self._held = bytearray()
        self._begun = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that end in this chunk. Raises EventTooLong."""
        if not self._begun and (self._held + chunk):
            # A byte order mark may stand before the first event, and comes in one chunk with it or alone.
            chunk, self._begun = chunk.removeprefix(codecs.BOM_UTF8), True
        # The line break that ended the last event may have come in two halves.
        held, new = self._held, len(self._held)
        held += chunk if held else chunk.lstrip(b"\r\n")
        # What was looked at before holds no end, but an end may begin in it.
        found, at, look = [], 0, max(0, new - _LONGEST_END + 1)
        while (end := _END.search(held, max(at, look))) is not None:
            found.append(_event(bytes(held[at : end.end()])))
            at = end.end()
            while held.startswith((b"\r", b"\n"), at):
                at += 1
        del held[:at]
        if len(self._held) > self._longest:
            raise EventTooLong
        return found

    def finish(self) -> list[Event]:
        """The last event, of a server that sends no empty line behind it."""
        held, self._held = bytes(self._held), bytearray()
        return [_event(held + b"\n\n")] if held.strip() else []


def _event(raw: bytes) -> Event:
    fields = [line.partition(b":") for line in _LINE.split(raw) if line]
    data = [value.removeprefix(b" ") for name, _, value in fields if name == b"data"]
    called = [value.removeprefix(b" ") for name, _, value in fields if name == b"event"]
    return Event(raw, b"\n".join(data) if data else None, called[-1] if called else b"")
