"""The example texts by which a policy states its concept, and the benign texts that set thresholds, as JSONL files."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from monitor.policy.files.yaml_document import PolicyProblems, Problem, YamlDocument, read_text
from monitor.policy.schema.policy import Concept, Strict, Text

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
    label: Label
    group: str


class _Row(Strict):
    text: Text
    label: Annotated[Label, Field(strict=False)]
    group: Annotated[str, Field(min_length=1, max_length=100)] = ""


class _BenignRow(Strict):
    text: Text
    kind: str | None = None
    group: str = ""


def concept_examples(concept: Concept, folder: Path) -> tuple[Example, ...]:
    """The examples of a concept: those in the policy, then those of its file. One without a group is its own group."""
    inline = [
        Example(text, label, f"inline {label} {i}")
        for label, texts in (
            (Label.POSITIVE, concept.positive),
            (Label.NEGATIVE, concept.negative),
            (Label.HARD_NEGATIVE, concept.hard_negative),
        )
        for i, text in enumerate(texts)
    ]
    filed = read_examples(folder / concept.examples) if concept.examples else ()
    return (*inline, *filed)


def read_examples(path: Path) -> tuple[Example, ...]:
    """The rows of an examples file; PolicyProblems with every bad line."""
    rows = [(n, row) for n, row in _rows(path, _Row) if isinstance(row, _Row)]
    found = {row.label for _, row in rows}
    if Label.POSITIVE not in found or len(found) < 2:
        message = "needs positive rows and negative or hard_negative rows"
        raise PolicyProblems([Problem(str(path), 1, 1, message)])
    return tuple(Example(row.text, row.label, row.group or f"line {n}") for n, row in rows)


def read_benign(path: Path) -> tuple[str, ...]:
    """The benign texts of a file with rows `{"text": ...}`; PolicyProblems with every bad line. See `benign` too."""
    return tuple(row.text for _, row in _rows(path, _BenignRow) if isinstance(row, _BenignRow))


def examples_digest(examples: Iterable[Example]) -> str:
    """`sha256:` over texts, labels and groups, in order."""
    return _digest([[e.text, str(e.label), e.group] for e in examples])


def texts_digest(texts: Iterable[str]) -> str:
    """`sha256:` over texts, in order."""
    return _digest(list(texts))


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
        key = str(getattr(row, "text", ""))
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
