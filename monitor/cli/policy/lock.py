"""`sae-monitor policy lock`: the flags, and what each policy's lock is bound to as a table."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from monitor.cli.errors import ExitCode
from monitor.cli.opened_pair import opened_untested, what_runs
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    LocksOption,
    ModelOption,
    PairOption,
)
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import printable
from monitor.cli.show.progress import steps_of
from monitor.lab.bound_locks import Binding, bind, bindings


def lock(
    policies: Annotated[Path, typer.Argument(help="Folder of policies with locks/PAIR/NAME.lock.yaml.")],
    rebind: Annotated[
        bool,
        typer.Option(
            "--rebind",
            help="Measure whether stale locks hold for this model and dictionary, and write their digests into those "
            "that do. Every other number of a lock stays as it is.",
        ),
    ] = False,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    locks: LocksOption = None,
    taken: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="NAME",
            help="Where this model and dictionary have no lock, take that in the folder locks/NAME, such as that of "
            "the same model in another quantisation. It stays there, and a copy is bound. Default: the own folder's.",
        ),
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Say of each policy whether it has a lock for this model and dictionary.

    With --rebind, a stale lock is bound to them where its policy, examples and recorded maxima are those that it was
    fitted with, `policy recheck` finds that it holds, and the policy's tests pass. Exit code 1 where a lock stays
    stale; `policy recheck` says more about those.
    """
    chosen = what_runs(model, dictionary, dictionary_format, pair_name, device)
    with steps_of("loading the model") as step:
        pair = opened_untested(chosen)
        binding = partial(bind, progress=step) if rebind else bindings
        found = binding(pair, policies, locks=locks, taken=taken)
    stdout_console().print(_table(found))
    if any(one.missing or (one.differs and not one.written) for one in found):
        raise typer.Exit(ExitCode.MATCHED)


def _table(found: Sequence[Binding]) -> Table:
    table = Table("policy", "lock", "in locks/", "why")
    for one in found:
        why = "; ".join(one.why_not) or (f"of another {' and '.join(one.differs)}" if one.differs else "")
        table.add_row(one.policy, _state(one), one.folder, Text(printable(why)))
    return table


def _state(one: Binding) -> str:
    if one.missing:
        return "missing"
    return "of this pair" if not one.differs else "bound now" if one.written else "stale"
