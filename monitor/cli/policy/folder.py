"""`sae-monitor policy check | schema | reload`: what concerns the files of policies and needs no model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.output import writable, write_text
from monitor.cli.show import words
from monitor.cli.show.console import stdout_console

if TYPE_CHECKING:
    from monitor.v1 import monitor_pb2 as pb


def check(policies: Annotated[Path, typer.Argument(help="Folder of policies.")]) -> None:
    """Read every policy with its examples, lock and test; print every problem with its position."""
    from monitor.policy.files.lint import check_folder

    checked = check_folder(policies)
    console = stdout_console()
    for line in checked.notes:
        console.print(line, soft_wrap=True)
    if checked.budget is not None:
        from monitor.cli.show.set_budget import budget_tables

        console.print(budget_tables(checked.budget))
    files, rules = words.counted(checked.policies, "policy", "policies"), words.counted(checked.rules, "rule")
    console.print(f"{files}, {rules}, {words.counted(checked.examples, 'example')}: no problem found")


def schema(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the schema to this file instead of standard output."),
    ] = None,
) -> None:
    """Print the JSON Schema of a policy file, for editors."""
    from monitor.policy.schema.policy import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
    else:
        writable(output)
        write_text(output, text)


def reload(
    address: Annotated[
        str, typer.Option("--connect", metavar="HOST:PORT", help="Tell the server at this address.")
    ] = "127.0.0.1:50051",
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Give up after so many seconds without an answer.")
    ] = 60.0,
) -> None:
    """Tell a running server to read its policy files again.

    Needs the admin role. Where a file is wrong, the server's last good policies stay and the exit code is 2.
    """
    from monitor.cli.session import connected

    with connected(address, timeout) as client:
        answer = client.reload()
    stdout_console().print(in_force(answer), soft_wrap=True, highlight=False)


def in_force(answer: pb.ReloadPoliciesResponse) -> str:
    """One line that says what is in force now."""
    digest = words.short_digest(answer.digests.policies)
    if not answer.changed:
        return f"the files are those in force ({digest})"
    names = [f"new: {', '.join(answer.added)}"] if answer.added else []
    names += [f"gone: {', '.join(answer.removed)}"] if answer.removed else []
    return "; ".join([f"in force now: {digest}", *names])
