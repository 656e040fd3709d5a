"""`sae-monitor token`: makes tokens for the file of callers. A token is printed once and stored nowhere."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.show.console import stderr_console
from monitor.errors import ConfigurationError
from monitor.rpc.access.callers import entry_line, new_token, read_callers
from monitor.rpc.access.roles import Role

token_app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Make tokens for callers of a server."
)


@token_app.callback()
def tokens() -> None:
    """Make tokens for callers of a server."""


@token_app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the caller that gets the token, such as gateway.")],
    role: Annotated[
        list[Role] | None,
        typer.Option(
            help="What the caller may do: infer, inspect or admin. Repeatable. Default: infer.",
            show_default=False,
        ),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36500, help="Days after which the token expires. Default: never.")
    ] = None,
    append: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add the caller's line to this file instead of printing it."),
    ] = None,
) -> None:
    """Make a token, and print it once on standard output. Give it to its caller and keep no copy.

    The line with its hash belongs in the file that the server's setting `callers` names. A running server reads changes
    of that file within a second.
    """
    token = new_token()
    expires = None if days is None else (datetime.now(UTC) + timedelta(days=days)).date()
    line = entry_line(name, role or [Role.INFER], token, expires)
    notes = stderr_console()
    if append is None:
        notes.print("line for the server's file of callers:", style="dim")
        notes.print(line, markup=False, highlight=False, soft_wrap=True)
    else:
        _append(append, line)
        notes.print(f"added to {append}", markup=False, highlight=False)
    notes.print("the token, shown this once:", style="dim")
    typer.echo(token)


def _append(path: Path, line: str) -> None:
    """Add a line, in a file that only its owner can read where it is new."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            whole = size == 0 or file.read(1) == b"\n"
            file.write((("" if whole else "\n") + line + "\n").encode())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
    read_callers(path)
