"""Text of others made safe to print: what a model wrote or a caller sent must not control the terminal."""

from __future__ import annotations

import unicodedata

_KEPT = frozenset("\n\t")
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """The text with control characters and direction overrides written as escapes (`\\x1b`, `\\u202e`).

    Newlines and tabs stay.
    """
    return "".join(_escape(character) for character in text)


def one_line(text: str) -> str:
    """As `printable`, with newlines and tabs escaped too: for quoting a token."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(character: str) -> str:
    acts = unicodedata.category(character) in ("Cc", "Cs") or character in _DIRECTION
    if not acts or character in _KEPT:
        return character
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
