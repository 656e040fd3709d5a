"""`sae-monitor policy check | schema | reload`: what concerns the files of policies and needs no model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.cli.output import writable, write_text
from monitor.cli.show import words
from monitor.cli.show.console import stdout_console
from monitor.pairs import registry

if TYPE_CHECKING:
    from monitor.policy.files.lint import PairLocks
    from monitor.v1 import monitor_pb2 as pb


def check(policies: Annotated[Path, typer.Argument(help="Folder of policies.")]) -> None:
    """Read every policy with its examples, locks and test; print every problem with its position.

    It also says for which pairs there are locks, and of which policies one is missing.
    """
    from monitor.policy.files.lint import check_folder

    checked = check_folder(policies)
    console = stdout_console()
    for line in (*checked.notes, *lock_lines(checked.locks, policies)):
        console.print(line, soft_wrap=True)
    for pair, budget in checked.budgets:
        from monitor.cli.show.set_budget import budget_tables

        console.print(f"locks/{pair}:", budget_tables(budget))
    files, rules = words.counted(checked.policies, "policy", "policies"), words.counted(checked.rules, "rule")
    console.print(f"{files}, {rules}, {words.counted(checked.examples, 'example')}: no problem found")


def lock_lines(found: Sequence[PairLocks], policies: Path) -> Iterator[str]:
    """A line for each folder of locks; and, where there are locks of a pair with a name, for the other such pairs."""
    known = registry.complete()
    for one in found:
        line = f"locks/{one.pair}: {words.counted(len(one.there), 'lock')}"
        if one.missing:
            flags = f"--pair {one.pair}" if one.pair in known else "--model MODEL --dictionary DICTIONARY"
            line += f"; missing for {', '.join(one.missing)}: `sae-monitor policy fit {policies} {flags}` makes them"
        yield line
    there = {one.pair for one in found}
    for name in (name for name in known if name not in there and there & set(known)):
        yield f"locks/{name}: none; `sae-monitor policy fit {policies} --pair {name}` makes them"


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
