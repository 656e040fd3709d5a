"""The example texts by which a policy states its concept, and the benign texts that set thresholds, as JSONL files."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from monitor.policy.files.occurrences import ANSWERED, ASKED, Document, Kind, occurrences
from monitor.policy.files.yaml_document import PolicyProblems, Problem, YamlDocument, read_text
from monitor.policy.schema.base import FieldCheck
from monitor.policy.schema.policy import Concept, Strict, Text, refuse

MAX_EXAMPLE_BYTES = 16 * 1024 * 1024
BENIGN_FILE = "benign.jsonl"


class Label(enum.StrEnum):
    """What an example shows. A hard negative is a benign text that looks like a positive."""

    POSITIVE = "positive"
    NEGATIVE = "negative"
    HARD_NEGATIVE = "hard_negative"


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled text. Cross-validation never splits the examples of one group."""

    text: str
    """The text; of a conversation all of it, written as a dialogue."""
    label: Label
    group: str
    kind: Kind = Kind.STATEMENT
    """Where it occurs."""
    messages: tuple[Mapping[str, str], ...] = ()
    """The conversation that it is, where it is one: `{"role": …, "content": …}` each."""

    def occurrences(self, *, turns: bool) -> tuple[Document, ...]:
        """The example as a model meets it, a statement twice; `turns` where the model has a chat template."""
        if self.messages and turns:
            return (self.messages,)
        return occurrences(self.text, self.kind, turns=turns)


def as_dialogue(messages: Iterable[Mapping[str, str]]) -> str:
    """A conversation, written as a dialogue."""
    named = {"user": ASKED, "assistant": ANSWERED + " ", "system": ""}
    return "\n\n".join(named[turn["role"]] + turn["content"] for turn in messages)


class _Message(Strict):
    role: Literal["system", "user", "assistant"]
    content: Text


class _Spoken(Strict):
    """A row's text, or the conversation in its place, and where it occurs."""

    text: Text | None = None
    messages: Annotated[list[_Message], Field(min_length=1, max_length=100)] | None = None
    kind: Annotated[Kind, Field(strict=False)] | None = None

    def checks(self) -> Iterable[FieldCheck]:
        """There is either a text or a conversation, and a conversation says by itself where it occurs."""
        return (self._one, self._no_kind)

    def _one(self) -> None:
        if (self.text is None) == (self.messages is None):
            raise refuse([], "write either `text` or `messages`")

    def _no_kind(self) -> None:
        if self.messages is not None and self.kind is not None:
            raise refuse(["kind"], "`kind` goes with `text`; a conversation says who speaks by its roles")

    @property
    def whole(self) -> str:
        """The text; of a conversation its turns, written as a dialogue."""
        return self.text or as_dialogue(self.turns)

    @property
    def turns(self) -> tuple[Mapping[str, str], ...]:
        """The conversation; empty where the row is a text."""
        return tuple({"role": turn.role, "content": turn.content} for turn in self.messages or [])


class _Row(_Spoken):
    label: Annotated[Label, Field(strict=False)]
    group: Annotated[str, Field(min_length=1, max_length=100)] = ""


def concept_examples(concept: Concept, folder: Path) -> tuple[Example, ...]:
    """The examples of a concept: those in the policy, then those of its file. One without a group is its own group."""
    kind = Kind(concept.kind or Kind.STATEMENT)
    inline = [
        Example(text, label, f"inline {label} {i}", kind)
        for label, texts in (
            (Label.POSITIVE, concept.positive),
            (Label.NEGATIVE, concept.negative),
            (Label.HARD_NEGATIVE, concept.hard_negative),
        )
        for i, text in enumerate(texts)
    ]
    filed = read_examples(folder / concept.examples, kind) if concept.examples else ()
    return (*inline, *filed)


def read_examples(path: Path, kind: Kind = Kind.STATEMENT) -> tuple[Example, ...]:
    """The rows of an examples file; PolicyProblems with every bad line. Rows without a kind are of the `kind` given."""
    rows = [(n, row) for n, row in _rows(path, _Row) if isinstance(row, _Row)]
    found = {row.label for _, row in rows}
    if Label.POSITIVE not in found or len(found) < 2:
        message = "needs positive rows and negative or hard_negative rows"
        raise PolicyProblems([Problem(str(path), 1, 1, message)])
    return tuple(
        Example(row.whole, row.label, row.group or f"line {n}", row.kind or kind, row.turns)
        for n, row in rows
    )


def examples_digest(examples: Iterable[Example]) -> str:
    """`sha256:` over texts, labels, groups and where the texts occur, in order."""
    return _digest([_digested(example) for example in examples])


def _digested(example: Example) -> list[object]:
    """What counts of an example. A statement counts as it did before examples said where they occur."""
    found: list[object] = [example.text, str(example.label), example.group]
    if example.kind is not Kind.STATEMENT:
        found.append(str(example.kind))
    return [*found, list(example.messages)] if example.messages else found


def texts_digest(texts: Iterable[str]) -> str:
    """`sha256:` over texts, in order."""
    return _digest(list(texts))


def documents_digest(documents: Iterable[Document]) -> str:
    """`sha256:` over texts and conversations, in order."""
    return _digest([one if isinstance(one, str) else list(one) for one in documents])


def _digest(value: Sequence[object]) -> str:
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def _rows(path: Path, model: type[Strict]) -> list[tuple[int, Strict]]:
    text = read_text(path, MAX_EXAMPLE_BYTES)
    document = YamlDocument(str(path), text)
    rows: list[tuple[int, Strict]] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = model.model_validate(json.loads(line, object_pairs_hook=_once))
        except (ValueError, RecursionError) as error:
            problems.extend(_row_problems(document, number, error))
            continue
        key = row.whole if isinstance(row, _Spoken) else ""
        if key in seen:
            problems.append(document.at(number - 1, 0, f"repeats the text of line {seen[key]}", "remove one"))
        seen.setdefault(key, number)
        rows.append((number, row))
    if not rows and not problems:
        problems.append(Problem(str(path), 1, 1, "has no rows", 'write rows such as {"text": "..."}'))
    if problems:
        raise PolicyProblems(problems)
    return rows


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError where a key stands twice, because it cannot be known which value is meant."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key `{twice[:40]}` stands here twice")
    return found


def _row_problems(document: YamlDocument, number: int, error: Exception) -> list[Problem]:
    if not isinstance(error, ValidationError):
        column = error.colno - 1 if isinstance(error, json.JSONDecodeError) else 0
        plain = isinstance(error, ValueError) and str(error).startswith("the key")
        message = str(error) if plain else f"is not a JSON object: {error}"
        return [document.at(number - 1, column, message, "keep one" if plain else "one object per line")]
    return [
        document.at(number - 1, 0, ": ".join([*map(str, one["loc"]), one["msg"]])) for one in error.errors()
    ]
