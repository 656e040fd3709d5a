"""How an answer leaves the process: JSON or a readable form on standard output, a picture, an exit code.

Knows formats and exit codes. Does not know calls.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from google.protobuf import json_format
from rich.console import RenderableType

from monitor.cli.errors import ExitCode
from monitor.cli.measure import RuleScores
from monitor.cli.picture import save_svg
from monitor.cli.shade import Painter
from monitor.v1 import monitor_pb2 as pb


def as_json(message: Any) -> str:
    """The message in the protocol's JSON form; fields that are false, zero or empty are written out."""
    return json_format.MessageToJson(message, always_print_fields_with_no_presence=True, ensure_ascii=False)


def exit_code(verdict: pb.Verdict, exit_zero: bool) -> ExitCode:
    """What a verdict means to a shell. What was not checked is an error, even with `exit_zero`."""
    complete = verdict.coverage.tokens_scored == verdict.coverage.tokens_run
    if verdict.status != pb.CHECK_STATUS_CHECKED or not complete:
        return ExitCode.ERROR
    if verdict.action > pb.ACTION_ALLOW and not exit_zero:
        return ExitCode.MATCHED
    return ExitCode.CLEAN


def leave(verdict: pb.Verdict, exit_zero: bool) -> None:
    """End the command with the verdict's exit code."""
    raise typer.Exit(exit_code(verdict, exit_zero))


def picture(
    path: Path | None, title: str, rules: RuleScores, form: Callable[[Painter], RenderableType]
) -> None:
    """Save the readable form as it looks on a terminal with colours, where a file was named."""
    if path is not None:
        save_svg(form(Painter(rules, colour=True)), path, title)
