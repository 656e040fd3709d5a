"""`sae-monitor policy lock`: the flags, and what each lock is bound to as a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from monitor.cli.errors import ExitCode
from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, ModelOption
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.printable import printable
from monitor.lab.bound_locks import Binding, bind, bindings


def lock(
    policies: Annotated[Path, typer.Argument(help="Folder of policies with NAME.lock.yaml beside each.")],
    rebind: Annotated[
        bool,
        typer.Option(
            "--rebind",
            help="Measure whether stale locks hold for this model and dictionary, and write their digests into those "
            "that do. Every other number of a lock stays as it is.",
        ),
    ] = False,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say of each lock whether it is of this model and dictionary.

    With --rebind, a stale lock is bound to them where its policy, examples and recorded maxima are those that it was
    fitted with, `policy recheck` finds that it holds, and the policy's tests pass. Exit code 1 where a lock stays
    stale; `policy recheck` says more about those.
    """
    from monitor.lab.pair import open_pair

    with stderr_console().status("loading") as status:
        pair = open_pair(model, dictionary, device, dictionary_format)
        found = bind(pair, policies, status.update) if rebind else bindings(pair, policies)
    stdout_console().print(_table(found))
    if any(one.differs and not one.written for one in found):
        raise typer.Exit(ExitCode.MATCHED)


def _table(found: Sequence[Binding]) -> Table:
    table = Table("policy", "lock", "why")
    for one in found:
        state = "of this pair" if not one.differs else "bound now" if one.written else "stale"
        why = "; ".join(one.why_not) or (f"of another {' and '.join(one.differs)}" if one.differs else "")
        table.add_row(one.policy, state, Text(printable(why)))
    return table
