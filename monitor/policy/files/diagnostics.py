"""Turns pydantic's errors into `Problem`s, which have a position in the file and advice on what to write."""

from __future__ import annotations

import contextlib
import difflib
import types
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from monitor.policy.files.yaml_document import PolicyProblems, Problem, YamlDocument
from monitor.policy.schema.partial import Partial
from monitor.policy.schema.policy import CATEGORY, DIGEST, FILE, LABEL, NAME
from monitor.policy.schema.probe import PROBE_FILE

Model = TypeVar("Model", bound=BaseModel)

_ADVICE = {
    "float_type": "write a number, such as 0.8",
    "int_type": "write a whole number",
    "string_type": "put the text in quotes",
    "list_type": "write a list: `- one entry per line`, or [a, b]",
    "tuple_type": "write a list: `- one entry per line`, or [a, b]",
    "model_type": "write fields, each on its own line below",
    "model_attributes_type": "write fields, each on its own line below",
    "dict_type": "write fields, each on its own line below",
    "finite_number": "write a finite number",
}

_UNWRITTEN = ("number", "rate", "lengths", "settings", "[key]")
"""Parts that pydantic adds to the path of a field and that are not in the file. So are all words in parentheses."""

_FORMS = {
    PROBE_FILE: "the name of a .safetensors file beside this file, without folders",
    LABEL: "letters, digits, `_`, `.` or `-`, no digit first",
    NAME: "lower-case words with hyphens, such as power-seeking",
    CATEGORY: "lower-case words with underscores, such as power_seeking",
    DIGEST: "sha256: and 64 hexadecimal digits, as `sae-monitor dictionary info` prints them",
    FILE: "the name of a .jsonl file beside the policy, without folders",
}


def validate(document: YamlDocument, model: type[Model]) -> Model:
    """Make the model from the document. Raises PolicyProblems, with one problem for every value that does not fit."""
    if not isinstance(document.data, dict):
        found = "is empty" if document.data is None else f"holds a {_kind(document.data)}"
        start = document.at(0, 0, f"the file {found}", "start with `apiVersion: monitor/v1`")
        raise PolicyProblems([*document.problems, start])
    try:
        made = model.model_validate(document.data)
    except ValidationError as error:
        problems = [
            problem
            for detail in error.errors(include_url=False)
            for problem in (_problem(document, model, detail), *_further(document, detail))
        ]
        raise PolicyProblems(_once(document, [*problems, *_beyond(document, model)])) from error
    if document.problems:
        raise PolicyProblems(document.problems)
    return made


def _beyond(document: YamlDocument, model: type[BaseModel]) -> list[Problem]:
    """Fields that do not fit each other, in a file that also has fields of the wrong type."""
    reading = Partial(document.data)
    with contextlib.suppress(ValidationError):
        model.model_validate(document.data, context=reading)
    return [document.problem(at, text) for at, text in reading.found]


def _once(document: YamlDocument, problems: Sequence[Problem]) -> list[Problem]:
    """The document's own problems, then the others, each once.

    Another problem at the place of one of the document's own is a consequence of it and is dropped.
    """
    there = {(problem.line, problem.column) for problem in document.problems}
    rest = [problem for problem in problems if (problem.line, problem.column) not in there]
    return [*document.problems, *dict.fromkeys(rest)]


def _further(document: YamlDocument, detail: ErrorDetails) -> list[Problem]:
    """The further mistakes that one pydantic error of a part carries."""
    more = detail.get("ctx", {}).get("more", [])
    return [document.problem([*detail["loc"], *one["at"]], str(one["text"])) for one in more]


def _problem(document: YamlDocument, model: type[BaseModel], detail: ErrorDetails) -> Problem:
    context = detail.get("ctx", {})
    path: list[str | int] = [*detail["loc"], *context.get("at", [])]
    name = _written(path)
    if detail["type"] == "extra_forbidden":
        hint = _suggest(str(path[-1]), _fields(model, path[:-1]))
        return document.problem(path, f"unknown field `{name}`", hint, key=True)
    if detail["type"] == "missing":
        return document.problem(path[:-1], f"the field `{name}` is missing", key=True)
    message = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if detail["type"] == "policy":
        return document.problem(path, message)
    if detail["type"] == "string_pattern_mismatch":
        return document.problem(path, f"`{name}` cannot be {_shown(detail['input'])}", _form(context))
    if "too_short" in detail["type"] or "too_long" in detail["type"]:
        return document.problem(path, f"`{name}` {_length(detail['type'], context)}")
    if detail["type"] == "union_tag_invalid":
        message = f"{context.get('tag')!r} is none of {context.get('expected_tags')}"
    found = "" if isinstance(detail["input"], dict | list) else f"; found {_shown(detail['input'])}"
    hint = _ADVICE.get(detail["type"], "")
    verb = "must be " if detail["msg"].startswith("Input should be ") else ""
    return document.problem(
        path, f"`{name}` {verb}{message}{found}" if verb else f"`{name}`: {message}{found}", hint
    )


def _length(kind: str, context: dict[str, Any]) -> str:
    if context.get("min_length") == 1:
        return "must not be empty"
    what = "characters" if kind.startswith("string") else "entries"
    least, most = context.get("min_length"), context.get("max_length")
    bound = f"at least {least}" if least is not None else f"at most {most}"
    return f"must have {bound} {what}" + (
        f"; found {context['actual_length']}" if "actual_length" in context else ""
    )


def _form(context: dict[str, Any]) -> str:
    pattern = str(context.get("pattern", ""))
    return _FORMS.get(pattern, f"write something that matches {pattern}")


def _suggest(word: str, fields: Sequence[str]) -> str:
    if word in fields:
        return "it does not go with the other field that stands here"
    close = difflib.get_close_matches(word, fields, n=1, cutoff=0.6)
    listed = ", ".join(fields)
    return (f"did you mean `{close[0]}`? " if close else "") + (f"fields here: {listed}" if listed else "")


def _fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the fields that may stand at a path; empty where that is not known."""
    here: list[type[BaseModel]] = [model]
    for part in path:
        fields = [(f.alias or n, f) for m in here for n, f in m.model_fields.items()]
        inner = [m for name, f in fields if name == part for m in _models(f.annotation)]
        here = inner or here
        tagged = [m for m in here if "kind" in m.model_fields and m.model_fields["kind"].default == part]
        here = tagged or here
    return list(dict.fromkeys(f.alias or n for m in here for n, f in m.model_fields.items()))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for inner in get_args(annotation):
        yield from _models(inner)


def _written(path: Sequence[str | int]) -> str:
    """A path as it stands in the file, without the parts that pydantic adds."""
    parts = [p for p in path if p not in _UNWRITTEN and not str(p).startswith("(")]
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")


def _kind(value: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}.get(
        type(value), "value"
    )


def _shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
