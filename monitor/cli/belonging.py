"""`--session` and `--label`: what a request says it belongs to.

Knows the options and where they stand in a message. Does not know which policies look at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from monitor.errors import InputError
from monitor.v1 import monitor_pb2 as pb

PANEL = "What it belongs to"

Session = Annotated[
    str | None,
    typer.Option(
        "--session",
        metavar="ID",
        help="Conversation that rules with `scope: session` add up over.",
        rich_help_panel=PANEL,
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="NAME=VALUE",
        help="For policies bound to labels; can be given again.",
        rich_help_panel=PANEL,
    ),
]


def belonging(content: pb.Input, session: str | None, labels: Sequence[str] | None) -> pb.Input:
    """The input with session and labels; `InputError` for a label that is not NAME=VALUE."""
    content.session_id = session or ""
    for label in labels or ():
        name, equals, value = label.partition("=")
        if not (name and equals):
            raise InputError(f"--label {label}: write NAME=VALUE, such as team=risk")
        content.labels[name] = value
    return content
