"""`sae-monitor policy compare`: two policy sets on the same texts, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    JsonOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.output import json_line
from monitor.cli.policy.data_flags import (
    ManifestOption,
    SplitSeedOption,
    TrainFractionOption,
    data_folder,
)
from monitor.cli.show.console import stdout_console
from monitor.cli.show.printable import one_line
from monitor.cli.show.progress import steps_of
from monitor.lab.compare_sets import ComparedSets, RuleFlips, compare_folders, file_texts, folder_texts
from monitor.records import Phase

SHOWN = 160
"""Characters of a text that are shown."""


def compare(
    a: Annotated[Path, typer.Argument(help="Folder of policies: set A.")],
    b: Annotated[Path, typer.Argument(help="Folder of policies to compare with it: set B.")],
    on: Annotated[
        Path,
        typer.Option(
            "--on",
            metavar="FILE|FOLDER",
            help="Compare on the texts of this .txt, .jsonl or .csv file, or of a folder of labelled files.",
        ),
    ],
    manifest: ManifestOption = None,
    train_fraction: TrainFractionOption = None,
    split_seed: SplitSeedOption = None,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    phase: Annotated[
        Phase,
        typer.Option(help="Take the texts for what a caller sent (prompt) or a model wrote (response)."),
    ] = Phase.PROMPT,
    rows: Annotated[
        int, typer.Option(min=2, help="Read at most so many rows of each file of a folder.")
    ] = 200,
    show: Annotated[
        int, typer.Option(min=0, help="Print so many texts of each rule that fire under one set alone.")
    ] = 0,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Say on which texts two policy sets disagree, rule by rule, and whether that is more than chance.

    Texts stay unseen unless `--show` asks for them. Both sets must be fitted to the same model and dictionary.
    """
    if on.is_dir():
        data = data_folder(on, manifest, train_fraction=train_fraction, split_seed=split_seed)
        texts, notes = folder_texts(data, rows), data.notes
    else:
        texts, notes = file_texts(on), ()
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    with steps_of("reading the policies") as step:
        found = compare_folders(pair, a, b, texts, phase, step)
    found = replace(found, notes=(*found.notes, *notes))
    if as_json:
        typer.echo(as_record(found, show))
    else:
        show_comparison(stdout_console(), found, show)


def show_comparison(console: Console, found: ComparedSets, show: int) -> None:
    """Counts as a table, then as many texts of each flip as were asked for."""
    result = found.result
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), title=f"{result.texts} texts under A and B")
    table.add_column("rule", no_wrap=True)
    for name in ("A fires", "B fires", "both", "only A", "only B", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for change in (*result.changes, result.verdict):
        table.add_row(*_row(change), style="bold" if change is result.verdict else "")
    console.print(table)
    for before, after, count in result.actions:
        console.print(f"{count} texts: {before.name.lower()} under A, {after.name.lower()} under B")
    console.print(
        Text("p: exact McNemar test of only A against only B; `-` where a set lacks the rule", "dim")
    )
    for note in found.notes:
        console.print(Text(note, "dim"))
    for change in result.changes if show else ():
        _show_texts(console, found, change, show)


def _row(change: RuleFlips) -> list[str]:
    fires_a, fires_b = change.both + len(change.only_a), change.both + len(change.only_b)
    compared = change.in_a and change.in_b
    return [
        "any enforced rule acts" if change.rule == "verdict" else change.rule,
        str(fires_a) if change.in_a else "-",
        str(fires_b) if change.in_b else "-",
        str(change.both),
        str(len(change.only_a)),
        str(len(change.only_b)),
        _p(change.p_value) if compared else "-",
    ]


def _p(value: float) -> str:
    return "<0.0001" if value < 1e-4 else f"{value:.4f}"


def _show_texts(console: Console, found: ComparedSets, change: RuleFlips, most: int) -> None:
    for name, which in (("only A", change.only_a), ("only B", change.only_b)):
        if which:
            console.print(Text(f"{change.rule}, {name} ({len(which)})", "bold"))
        for i in which[:most]:
            line = one_line(found.texts[i][:SHOWN])
            console.print(Text.assemble(("  " + found.sources[i] + "  ", "dim"), line), soft_wrap=True)


def as_record(found: ComparedSets, show: int) -> str:
    """Everything as JSON; texts only where they were asked for."""

    def flips(which: Sequence[int]) -> dict[str, object]:
        rows = [{"text": found.texts[i], "source": found.sources[i]} for i in which[:show]]
        return {"count": len(which), "indices": list(which), **({"texts": rows} if show else {})}

    def record(change: RuleFlips) -> dict[str, object]:
        compared = change.in_a and change.in_b
        return {
            "rule": change.rule,
            "in_a": change.in_a,
            "in_b": change.in_b,
            "both": change.both,
            "neither": change.neither,
            "only_a": flips(change.only_a),
            "only_b": flips(change.only_b),
            "p_value": change.p_value if compared else None,
        }

    result = found.result
    return json_line(
        {
            "texts": result.texts,
            "digests": {"a": found.digests[0], "b": found.digests[1]},
            "notes": list(found.notes),
            "verdict": record(result.verdict),
            "rules": [record(change) for change in result.changes],
            "actions": [
                {"a": x.name.lower(), "b": y.name.lower(), "texts": count} for x, y, count in result.actions
            ],
        },
    )
