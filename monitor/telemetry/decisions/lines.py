"""The format of a line in the decision log: a JSON object that ends in the checksum of everything before it.

    {"seq":7, … ,"crc32":"1a2b3c4d"}\\n

Any JSON tool can read it. A line that was written incompletely, or changed later, is recognised.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

LONGEST = 32 << 20
"""Maximum length of a line in bytes."""

_MARK = b',"crc32":"'
_END = b'"}'
_ROOM = 64
"""Bytes reserved in a line for the sequence number and the checksum."""
_TAIL = len(_MARK) + 8 + len(_END)


class TornLine(ValueError):
    """The bytes are not a complete line."""


def body(content: Mapping[str, Any]) -> bytes:
    """A record as JSON in UTF-8, without sequence number and checksum.

    Raises ValueError or TypeError for values that JSON does not have, such as NaN, and ValueError for a record that is
    longer than a line may be.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    record = text.encode("utf-8", "replace")
    if len(record) > LONGEST - _ROOM:
        raise ValueError(f"the record has {len(record)} bytes; a line holds {LONGEST}")
    return record


def seal(seq: int, record: bytes) -> bytes:
    """The complete line of a record from `body`: with sequence number, checksum and newline."""
    rest = record[1:-1]
    head = b'{"seq":%d%s%s' % (seq, b"," if rest else b"", rest)
    return b"%s%s%08x%s\n" % (head, _MARK, zlib.crc32(head), _END)


def decode(line: bytes) -> dict[str, Any]:
    """The content of a line that is given without its newline. Raises TornLine where the checksum does not match."""
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
