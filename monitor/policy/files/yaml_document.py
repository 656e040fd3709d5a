"""A YAML file with the position of every key and value, and the problems that point at them.

Anchors, aliases, tags, repeated keys and deep nesting are refused, so that a file means what a reader sees.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.parser import Parser
from ruamel.yaml.reader import ReaderError

from monitor import utf8
from monitor.errors import PolicyError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
_PARSER = (
    *(YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError),
    *(ArithmeticError, AssertionError),  # "\UFFFFFFFF", `%YAML 1.3`
)
"""What the parser raises for text that is not YAML."""
_CORE = "tag:yaml.org,2002:"
_SHOWN = 160
_PIECE = 64 * 1024
UNREADABLE = object()
"""Stands for a value that is already reported as wrong. No field accepts it."""
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What the parser counts as the end of a line."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in one file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    """What to write instead."""
    source: str = ""
    """The text of the line."""

    def __str__(self) -> str:
        """`file:line:column: message`, the line, a caret, and the hint."""
        text = f"{self.file}:{self.line}:{self.column}: {self.message}"
        if self.source:
            shown, caret = _window(self.source, self.column)
            text += f"\n{self.line:6} | {shown}\n       | {caret}^"
        return text + (f"\n       = {self.hint}" if self.hint else "")


class PolicyProblems(PolicyError):
    """The error that lists every problem of every file that was read, in order of file and line."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column)))
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the policy files"
        super().__init__("\n".join([head, *map(str, self.problems)]))


class YamlDocument:
    """A YAML file: its lines, its data as plain Python values, and the position of each value."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.lines = _BREAKS.split(text)
        self.root: Node | None = None
        self.data: Any = None
        self.problems: list[Problem] = []
        """Problems after which the rest of the file can still be read, such as repeated keys and malformed numbers."""

    def problem(self, path: Sequence[object], message: str, hint: str = "", *, key: bool = False) -> Problem:
        """A problem at the value under `path`, or with `key` at its key. Missing parts of the path are skipped."""
        node = self._find(path, key)
        mark = node.start_mark if node is not None else None
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        return self.at(line, column, message, hint)

    def at(self, line: int, column: int, message: str, hint: str = "") -> Problem:
        """A problem at a line and column that count from 0."""
        source = self.lines[line] if 0 <= line < len(self.lines) else ""
        return Problem(self.name, line + 1, column + 1, _one_line(message), _one_line(hint), source)

    def _find(self, path: Sequence[object], key: bool) -> Node | None:
        node, shown = self.root, self.root
        for part in path:
            if isinstance(node, MappingNode):
                pair = next((p for p in node.value if p[0].value == part), None)
                if pair is not None:
                    shown, node = (pair[0] if key or _absent(pair[1]) else pair[1]), pair[1]
            elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = shown = node.value[part]
        return shown


def read_document(path: Path, *, limit: int = MAX_BYTES) -> YamlDocument:
    """Read and parse a YAML file; PolicyProblems where it cannot be read, or is not plain YAML.

    Problems of single keys and values are kept in the document's `problems`, which `validate` reports with its own.
    """
    text = read_text(path, limit)
    document = YamlDocument(str(path), text)
    _parse(document, text)
    return document


def read_text(path: Path, limit: int) -> str:
    """The text of a UTF-8 file of at most `limit` bytes; PolicyProblems otherwise."""
    name = str(path)
    try:
        if path.exists() and not path.is_file():
            what = "is a folder" if path.is_dir() else "is not a file"  # a pipe would be waited for
            raise PolicyProblems([Problem(name, 1, 1, f"cannot be read: {what}", "put a file there")])
        raw = read_bounded(path, limit)
    except OSError as error:
        raise PolicyProblems([Problem(name, 1, 1, f"cannot be read: {error.strerror}")]) from error
    if len(raw) > limit:
        hint = "split it; examples belong into a JSONL file beside the policy"
        raise PolicyProblems([Problem(name, 1, 1, f"is larger than {limit} bytes", hint)])
    try:
        return utf8.decode(raw)
    except utf8.NotUtf8 as error:
        message, _, hint = str(error).partition("; ")
        raise PolicyProblems([Problem(name, error.line, error.column, message, hint)]) from error


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a file. Of a file longer than `limit`, only the first part, which is also longer than `limit`."""
    # In pieces, because `read(n)` allocates n bytes beforehand.
    content = bytearray()
    with path.open("rb") as file:
        while len(content) <= limit and (piece := file.read(_PIECE)):
            content += piece
    return bytes(content)


def _parse(document: YamlDocument, text: str) -> None:
    yaml = YAML(typ="safe", pure=True)
    refusals = _Refusals(document)
    yaml.composer.warn_double_anchors = False  # They are refused.
    yaml.Parser = lambda loader: _ListeningParser(loader, refusals)
    try:
        root = yaml.compose(text)
        if not refusals.problems:
            document.root = root
            document.data = _plain(document, root, document.problems)
    except PolicyProblems:
        raise
    except _PARSER as error:
        # What was refused before may be why the rest makes no sense.
        raise PolicyProblems(refusals.problems or [_unreadable(document, text, error)]) from error
    if refusals.problems:
        raise PolicyProblems(refusals.problems)


def _unreadable(document: YamlDocument, text: str, error: Exception) -> Problem:
    """The problem for what the parser raised."""
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line, mark.column) if mark is not None else (0, 0)
        return document.at(line, column, *_explain(error))
    if isinstance(error, ReaderError):
        line, column = _line_column(text, int(error.position))
        found = error.character
        code = found if isinstance(found, int) else ord(str(found)[0])
        return document.at(line, column, f"character U+{code:04X} is not allowed in YAML", "remove it")
    return document.at(0, 0, f"is not valid YAML: {error}")


class _Refusals:
    """Anchors, aliases, explicit tags and deep nesting, found before anything is built from them."""

    def __init__(self, document: YamlDocument) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._depth = 0

    def see(self, event: Event) -> None:
        """Note what an event has that is refused. Raises PolicyProblems where it is nested too deep to go on."""
        mark = event.start_mark
        if isinstance(event, AliasEvent):
            self._refuse(mark, "aliases are refused", "write the value out")
        elif isinstance(event, NodeEvent) and event.anchor:
            self._refuse(mark, "anchors are refused", "write the value out where it is used")
        elif tag := getattr(event, "tag", None):
            self._refuse(mark, f"the tag {tag} is refused", "write the plain value")
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                self._refuse(mark, f"is nested deeper than {MAX_DEPTH} levels", "")
                raise PolicyProblems(self.problems)
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            self._depth -= 1

    def _refuse(self, mark: Any, message: str, hint: str) -> None:
        self.problems.append(self._document.at(mark.line, mark.column, message, hint))


class _ListeningParser(Parser):
    """A parser that shows every event to `_Refusals` before the composer gets it."""

    def __init__(self, loader: Any, refusals: _Refusals) -> None:
        super().__init__(loader)
        self._refusals = refusals

    def get_event(self) -> Any:
        """The next event."""
        event = super().get_event()
        self._refusals.see(event)
        return event


def _plain(document: YamlDocument, node: Node | None, problems: list[Problem]) -> Any:
    if isinstance(node, MappingNode):
        return _mapping(document, node, problems)
    if isinstance(node, SequenceNode):
        return [_plain(document, item, problems) for item in node.value]
    if isinstance(node, ScalarNode):
        return _scalar(document, node, problems)
    return None


def _mapping(document: YamlDocument, node: MappingNode, problems: list[Problem]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in node.value:
        mark = key.start_mark
        if not isinstance(key, ScalarNode):
            problems.append(document.at(mark.line, mark.column, "a key must be a plain word"))
        elif key.value in result:
            message = f"the key `{_short(key.value)}` stands here a second time"
            problems.append(document.at(mark.line, mark.column, message, "keep one of them"))
        else:
            result[key.value] = _plain(document, value, problems)
    return result


def _scalar(document: YamlDocument, node: ScalarNode, problems: list[Problem]) -> Any:
    kind = str(node.tag).removeprefix(_CORE)
    text = str(node.value)
    try:
        if kind == "int":
            return _integer(text)
        if kind == "float":
            return _real(text)
    except ValueError:
        mark = node.start_mark
        problems.append(document.at(mark.line, mark.column, f"`{_short(text)}` is not a number"))
        return UNREADABLE
    if kind == "bool":
        return text.lower() in ("true", "yes", "on", "y")
    return None if kind == "null" else text


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError("too many digits")
    return int(text.replace("_", ""), 0 if text.lstrip("+-")[:2].lower() in ("0x", "0o", "0b") else 10)


def _real(text: str) -> float:
    return float(
        text.replace("_", "")
        .replace(".inf", "inf")
        .replace(".Inf", "inf")
        .replace(".nan", "nan")
        .replace(".NaN", "nan")
    )


def _explain(error: MarkedYAMLError) -> tuple[str, str]:
    what = str(error.problem or error.context or "is not valid YAML")
    if "'\\t'" in what or "tab" in what:
        return "a tab stands where YAML wants spaces", "indent with spaces"
    if "single document" in f"{error.context} {what}":
        return "a second document starts here", "one policy per file: remove the `---`"
    return f"is not valid YAML: {what}", ""


def _line_column(text: str, position: int) -> tuple[int, int]:
    starts = [0] + [i + 1 for i, c in enumerate(text) if c == "\n"]
    line = bisect.bisect_right(starts, position) - 1
    return line, position - starts[line]


def _window(source: str, column: int) -> tuple[str, str]:
    """The part of a line around a column, and the blanks and tabs that put a caret under that column."""
    start = max(0, column - 1 - _SHOWN // 2) if len(source) > _SHOWN else 0
    shown = source[start : start + _SHOWN]
    before = shown[: column - 1 - start]
    return shown, "".join("\t" if c == "\t" else " " for c in before)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _absent(node: Node) -> bool:
    """True for a value that is left out. Its mark is then that of whatever comes next."""
    return isinstance(node, ScalarNode) and bool(node.start_mark.index == node.end_mark.index)


def _one_line(text: str) -> str:
    return " ".join(text.split())
