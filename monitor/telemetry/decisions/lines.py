"""One line of the log: a JSON object that ends in the checksum of everything before it.

    {"seq":7, … ,"crc32":"1a2b3c4d"}\\n

Any JSON tool reads it; a line that was written in part, or changed since, is recognised. Does not know what a
record contains, nor files.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

LONGEST = 32 << 20
"""Bytes. A longer run without a line's end is not one of ours."""

_MARK = b',"crc32":"'
_END = b'"}'
_ROOM = 64
"""Bytes for the number and the checksum."""
_TAIL = len(_MARK) + 8 + len(_END)


class TornLine(ValueError):
    """The bytes are not a line that was written whole."""


def body(content: Mapping[str, Any]) -> bytes:
    """A record as JSON, without a number.

    ValueError or TypeError for what JSON cannot hold, NaN among it; ValueError for more than a line can, because nobody
    could read it back.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    record = text.encode("utf-8", "replace")
    if len(record) > LONGEST - _ROOM:
        raise ValueError(f"the record has {len(record)} bytes; a line holds {LONGEST}")
    return record


def seal(seq: int, record: bytes) -> bytes:
    """The line of a record that `body` made: numbered, with its checksum, newline included."""
    rest = record[1:-1]
    head = b'{"seq":%d%s%s' % (seq, b"," if rest else b"", rest)
    return b"%s%s%08x%s\n" % (head, _MARK, zlib.crc32(head), _END)


def decode(line: bytes) -> dict[str, Any]:
    """The content of a line without its newline and without its checksum. Raises TornLine."""
    head, tail = line[:-_TAIL], line[-_TAIL:]
    if not head or not tail.startswith(_MARK) or not tail.endswith(_END):
        raise TornLine("has no checksum at its end")
    if tail[len(_MARK) : -len(_END)] != f"{zlib.crc32(head):08x}".encode():
        raise TornLine("does not match its checksum")
    try:
        content = json.loads(head + b"}")
    except ValueError:
        raise TornLine("is not JSON") from None
    if not isinstance(content, dict) or not isinstance(content.get("seq"), int):
        raise TornLine("has no sequence number")
    return content
