"""Decodes texts that people save: UTF-8, with or without the byte order mark that some editors put in front."""

from __future__ import annotations

import codecs

_OTHERS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAMPLE = 64
"""Number of characters by which UTF-16 without a mark is recognised."""


class NotUtf8(ValueError):
    """The bytes are not UTF-8. The message says what was found, and what to do."""

    def __init__(self, found: str, message: str, offset: int, line: int, column: int) -> None:
        super().__init__(message)
        self.found = found
        """Another encoding, or the first wrong byte."""
        self.offset = offset
        """Number of bytes before the first wrong one."""
        self.line, self.column = line, column
        """Where the first wrong byte stands, counted from 1; columns are characters."""


def decode(data: bytes) -> str:
    """The text that bytes in UTF-8 stand for, without a byte order mark in front. Raises NotUtf8 for other bytes."""
    other = _other(data)
    if other:
        message = f"is {other}, not UTF-8; convert it, for example with `iconv -f {other} -t UTF-8`"
        raise NotUtf8(other, message, 0, 1, 1)
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise NotUtf8(
            found, f"{found} is not UTF-8; save the text as UTF-8", error.start, line, column
        ) from error


def _other(data: bytes) -> str:
    """Name of another encoding that the bytes are in; empty where none is recognised."""
    for mark, name in _OTHERS:
        if data.startswith(mark):
            return name
    # Letters of the Latin script in UTF-16: every second byte is zero.
    sample = data[: 2 * _SAMPLE]
    first, second = sample[0::2], sample[1::2]
    mixed = (all(first) and not any(second)) or (all(second) and not any(first))
    return "UTF-16" if len(sample) > 2 and mixed else ""
