"""The text that a command reads: from the command line, standard input or a file, as UTF-8."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from monitor import utf8
from monitor.errors import InputError
from monitor.v1 import monitor_pb2 as pb

STDIN = "-"


def read_text(text: str | None, file: Path | None) -> str:
    """Read the text from `text` (`-` is standard input) or `file`. Raises InputError unless one of them is given."""
    if (text is None) == (file is None):
        raise InputError("give either TEXT (`-` reads standard input) or --file PATH")
    source, data = _bytes(text, file)
    found = _text(source, data)
    if not found:
        raise InputError(f"{source} is empty: there is nothing to read")
    return found


def as_input(text: str, *, chat: bool, system: str | None, truncate: bool) -> pb.Input:
    """The `Input` message of a text: plain, or with `chat` as a user's turn after an optional system turn."""
    if not chat:
        if system is not None:
            raise InputError("--system belongs to a conversation: add --chat")
        return pb.Input(text=text, truncate=truncate)
    turns = []
    if system is not None:
        turns.append(pb.ChatMessage(role=pb.ROLE_SYSTEM, content=_text("--system", _encoded(system))))
    turns.append(pb.ChatMessage(role=pb.ROLE_USER, content=text))
    return pb.Input(conversation=pb.Conversation(messages=turns), truncate=truncate)


def as_sampling(**given: Any) -> pb.Sampling:
    """The `Sampling` message with these fields; None leaves one out. Raises InputError for an invalid value."""
    sampling = pb.Sampling()
    for name, value in given.items():
        try:
            sampling.MergeFrom(pb.Sampling(**{name: value}))
        except ValueError as error:
            flag = name.replace("_", "-")
            raise InputError(f"--{flag}: {value!r} cannot be sent: it is out of range or no text") from error
    return sampling


def _bytes(text: str | None, file: Path | None) -> tuple[str, bytes]:
    """Name of the source and its bytes."""
    if file is not None:
        try:
            return str(file), file.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {file}: {error.strerror}") from error
    if text == STDIN:
        return "standard input", sys.stdin.buffer.read()
    return "TEXT", _encoded(text or "")


def _encoded(argument: str) -> bytes:
    """The bytes that were typed."""
    return argument.encode("utf-8", "surrogateescape")


def _text(source: str, data: bytes) -> str:
    """The text without a byte order mark: the mark is no part of what was written."""
    try:
        return utf8.decode(data)
    except utf8.NotUtf8 as error:
        where = f"{error.found} at offset {error.offset} (line {error.line})"
        raise InputError(
            f"{source} is not valid UTF-8: {where}; convert it first, for example with iconv"
        ) from error
