"""How a command ends: an answer as JSON or as text, a picture or another file, and the exit code."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from google.protobuf import json_format
from rich.console import RenderableType

from monitor.cli.errors import ExitCode
from monitor.cli.show.shade import Painter
from monitor.cli.show.strength import RuleScores
from monitor.cli.show.svg import save_svg
from monitor.errors import InputError
from monitor.v1 import monitor_pb2 as pb

_LINE_ENDS = re.compile("[\x85\u2028\u2029]")


def as_json(message: Any) -> str:
    """The message in the protocol's JSON form, on one line; fields that are false, zero or empty are written out."""
    return json_line(json_format.MessageToDict(message, always_print_fields_with_no_presence=True))


def json_line(value: object) -> str:
    """A value as JSON on one line, also for readers that take U+2028 and its like for the end of a line."""
    text = json.dumps(value, ensure_ascii=False)
    # They can only stand inside of strings.
    return _LINE_ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def exit_code(verdict: pb.Verdict, exit_zero: bool) -> ExitCode:
    """The exit code for a verdict. A request that was not checked in full is an error, even with `exit_zero`."""
    complete = verdict.coverage.tokens_scored == verdict.coverage.tokens_run
    if verdict.status != pb.CHECK_STATUS_CHECKED or not complete:
        return ExitCode.ERROR
    if verdict.action > pb.ACTION_ALLOW and not exit_zero:
        return ExitCode.MATCHED
    return ExitCode.CLEAN


def exit_by(verdict: pb.Verdict, exit_zero: bool) -> None:
    """End the command with the verdict's exit code."""
    raise typer.Exit(exit_code(verdict, exit_zero))


def picture(
    path: Path | None, title: str, rules: RuleScores, form: Callable[[Painter], RenderableType]
) -> None:
    """Save the readable form as an SVG picture with colours, if `path` is given."""
    if path is not None:
        save_svg(form(Painter(rules, colour=True)), path, title)


def writable(path: Path | None) -> None:
    """Raise InputError where a file at `path` could not be written. None is always fine."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"no folder at {path.parent}; make it, or name a file elsewhere")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written; name a file elsewhere")


def write(path: Path, how: Callable[[Path], object]) -> None:
    """Write a file by calling `how`. Raises InputError where that fails."""
    try:
        how(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name a file elsewhere") from error


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8. Raises InputError where that fails."""
    write(path, lambda there: there.write_text(text, "utf-8"))
