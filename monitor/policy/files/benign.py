"""Benign texts that come with policies: `benign.jsonl` beside them, and every `.jsonl` file of the folder `benign/`.

A row is `{"kind": "prose", "text": "…", "group": "…"}`, or has `messages` in place of `text`: a conversation that ends
in the answer of a model, or in a request. Kind and group may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from monitor.policy.files.examples import BENIGN_FILE, MAX_EXAMPLE_BYTES, as_dialogue
from monitor.policy.files.occurrences import Kind
from monitor.policy.files.yaml_document import PolicyProblems, Problem, YamlDocument, read_text
from monitor.policy.schema.base import FieldCheck, Strict, refuse

BENIGN_FOLDER = "benign"
DIALOGUE, INSTRUCTIONS, PROSE, CODE = "dialogue", "instructions", "prose", "code"
"""The kinds of text that are usual; a row may name others."""
KIND = r"^[a-z][a-z0-9_]{0,31}$"
Turn = Mapping[str, str]
Written = Annotated[str, Field(min_length=1, max_length=200_000)]


@dataclass(frozen=True, slots=True)
class BenignText:
    """A text that no rule should fire on: a text by itself, or a conversation."""

    kind: str
    """What it is: `dialogue`, `instructions`, `prose`, `code` or another word."""
    text: str = ""
    """The text; empty for a conversation."""
    messages: tuple[Turn, ...] = ()
    """The conversation, as `{"role": …, "content": …}`; empty for a text by itself."""
    group: str = ""
    """Texts of one group come from one source, and no split parts them."""

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """The messages up to the last answer of the model."""
        return self.messages[:-1] if self.answered else self.messages

    @property
    def answer(self) -> str:
        """The last answer of the model; empty where there is none."""
        return self.messages[-1]["content"] if self.answered else ""

    @property
    def answered(self) -> bool:
        """Whether it is a conversation that ends in an answer of the model to something."""
        return len(self.messages) > 1 and self.messages[-1]["role"] == "assistant"

    @property
    def plain(self) -> str:
        """All that is said in it."""
        return self.text or "\n\n".join(turn["content"] for turn in self.messages)

    @property
    def whole(self) -> str:
        """The text; of a conversation its turns, written as a dialogue."""
        return self.text or as_dialogue(self.messages)


class _BenignTurn(Strict):
    role: Literal["system", "user", "assistant"]
    content: Written


class _BenignTextRow(Strict):
    text: Written | None = None
    messages: Annotated[list[_BenignTurn], Field(min_length=1, max_length=200)] | None = None
    kind: Annotated[str, Field(pattern=KIND)] | None = None
    group: Annotated[str, Field(max_length=100)] = ""

    def checks(self) -> Iterable[FieldCheck]:
        """There is a text or a conversation."""
        return (self._one,)

    def _one(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise refuse([], 'write either `text` or `messages`, such as {"text": "…"}')


def benign_files(folder: Path) -> list[Path]:
    """The files of benign texts that come with the policies of a folder, in a fixed order."""
    beside = folder / BENIGN_FILE
    return [*([beside] if beside.is_file() else []), *sorted((folder / BENIGN_FOLDER).glob("*.jsonl"))]


def read_benign_texts(path: Path) -> list[BenignText]:
    """The benign texts of a file, each once; PolicyProblems with every bad line.

    A row without a kind is a dialogue where it has messages, and instructions in `benign.jsonl`. In another file it is
    of the kind that the file is called after: `code-of-mine.jsonl` holds code.
    """
    text = read_text(path, MAX_EXAMPLE_BYTES)
    document = YamlDocument(str(path), text)
    found: dict[str, BenignText] = {}
    problems: list[Problem] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = _BenignTextRow.model_validate(json.loads(line))
        except (ValueError, RecursionError) as error:
            problems.extend(document.at(number - 1, 0, said) for said in _said(error))
            continue
        made = _made(row, path, number)
        found.setdefault(made.plain, made)
    if not found and not problems:
        problems.append(Problem(str(path), 1, 1, "has no rows", 'write rows such as {"text": "..."}'))
    if problems:
        raise PolicyProblems(problems)
    return list(found.values())


def folder_benign_texts(folder: Path) -> list[BenignText]:
    """All benign texts that come with the policies of a folder; PolicyProblems with every bad line of every file."""
    found: list[BenignText] = []
    problems: list[Problem] = []
    for path in benign_files(folder):
        try:
            found += read_benign_texts(path)
        except PolicyProblems as error:
            problems += error.problems
    if problems:
        raise PolicyProblems(problems)
    return found


def read_benign(path: Path) -> tuple[str, ...]:
    """The benign texts of a file, conversations written as dialogues; PolicyProblems with every bad line."""
    return tuple(read_benign_kinds(path))


def read_benign_kinds(path: Path) -> dict[str, Kind]:
    """The benign texts of a file, each with where it occurs; PolicyProblems with every bad line.

    A row says so where its kind is `request`, `response` or `statement`; all others are statements.
    """
    return {found.whole: _OCCURS.get(found.kind, Kind.STATEMENT) for found in read_benign_texts(path)}


_OCCURS = {str(kind): kind for kind in Kind}


def _made(row: _BenignTextRow, path: Path, number: int) -> BenignText:
    kind = row.kind or (DIALOGUE if row.messages else _kind_of(path))
    messages = tuple({"role": turn.role, "content": turn.content} for turn in row.messages or ())
    return BenignText(kind, row.text or "", messages, row.group or f"{path.name} line {number}")


def _kind_of(path: Path) -> str:
    return INSTRUCTIONS if path.name == BENIGN_FILE else path.stem.replace(".", "-").partition("-")[0].lower()


def _said(error: Exception) -> Iterator[str]:
    """What is wrong with a row, once for each part of it."""
    if isinstance(error, ValidationError):
        for one in error.errors():
            message = one["msg"].removeprefix("Value error, ")
            yield ": ".join([*map(str, one["loc"]), message])
    else:
        yield f"is not a JSON object: {error}"
