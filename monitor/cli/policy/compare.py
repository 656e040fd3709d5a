"""`sae-monitor policy compare`: two policy sets on the same texts, and who flips.

Knows options, files and output. Does not know how rules are evaluated or what the numbers mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, JsonOption, ModelOption
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.printable import one_line
from monitor.errors import InputError
from monitor.lab.compare_sets import Change, Comparison, compare
from monitor.lab.extra_rows import held_out
from monitor.lab.pair import open_pair
from monitor.lab.running_policies import bound_elsewhere, load_set, running_of
from monitor.lab.texts import read_texts
from monitor.policy.files.examples import read_examples
from monitor.policy.files.loader import read_folder
from monitor.policy.policyset import PolicySet
from monitor.records import Phase

if TYPE_CHECKING:
    from monitor.lab.readings import PairReader
    from monitor.policy.files.source import Running
import numpy as np
from numpy.typing import NDArray

from monitor.lab.compare_sets import Outcome
from monitor.policy.fit import TextReadings
from monitor.policy.fit.rule_scorers import columns
from monitor.records import TokenBlock

EXAMPLES = ".examples.jsonl"
"""How the examples of a policy are called; their labels are words."""
SHOWN = 160
"""Characters of a text that are shown."""


@dataclass(frozen=True)
class Compared:
    """Texts with where they come from, and what the sets made of them."""

    texts: Sequence[str]
    sources: Sequence[str]
    digests: tuple[str, str]
    result: Comparison
    notes: tuple[str, ...] = ()
    """Which policies were not compared, and why."""


def compare_sets(
    a: Annotated[Path, typer.Argument(help="Folder of policies.")],
    b: Annotated[Path, typer.Argument(help="Folder of policies to compare with it.")],
    on: Annotated[
        Path,
        typer.Option("--on", help="A .txt or .jsonl file of texts, or a folder of CONCEPT/SOURCE.jsonl."),
    ],
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    phase: Annotated[Phase, typer.Option(help="Who wrote the texts: prompt or response.")] = Phase.PROMPT,
    rows: Annotated[int, typer.Option(min=2, help="Most rows of each source of a folder.")] = 200,
    show: Annotated[int, typer.Option(min=0, help="Texts to show of each kind of flip.")] = 0,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Say on which texts two policy sets disagree, rule by rule, and whether that is more than chance.

    Texts stay unseen unless `--show` asks for them. Both sets must be fitted to the same model and dictionary.
    """
    from monitor.lab.readings import PairReader

    pair = open_pair(model, dictionary, device, dictionary_format)
    running = running_of(PairReader(pair))
    sets = [load_set(folder, running) for folder in (a, b)]
    texts, sources = _texts(on, rows)
    reader = PairReader(pair, {signal for policies in sets for signal in policies.watch.signals})
    notes = [note for name, folder in (("A", a), ("B", b)) for note in _left_out(name, folder, running)]
    found = replace(_compared(reader, sets, texts, sources, phase), notes=tuple(notes))
    console = stdout_console()
    if as_json:
        typer.echo(as_record(found, show))
    else:
        show_comparison(console, found, show)


def _compared(
    reader: PairReader, sets: Sequence[PolicySet], texts: Sequence[str], sources: Sequence[str], phase: Phase
) -> Compared:

    with stderr_console().status(f"reading {len(texts)} texts"):
        read = reader.read(texts)
        first, second = (outcomes(policies, read, phase) for policies in sets)
    result = compare(first, second, *(_rules(policies) for policies in sets))
    return Compared(texts, sources, (sets[0].digest, sets[1].digest), result)


def _left_out(name: str, folder: Path, running: Running) -> Iterator[str]:
    """The policies of set `name` that do not apply to the model that reads."""
    for source in read_folder(folder):
        if where := bound_elsewhere(source, running):
            yield f"{source.model.metadata.name} of {name}: {where}; not compared on this model"


def _rules(policies: PolicySet) -> set[str]:
    return {f"{policy.name}/{rule.name}" for policy in policies.policies for rule in policy.rules}


def _texts(on: Path, rows: int) -> tuple[list[str], list[str]]:
    """Texts and the names of their sources; InputError where there are none."""
    if on.name.endswith(EXAMPLES):
        found = [example.text for example in read_examples(on)]
        return found, [on.name] * len(found)
    if not on.is_dir():
        found = [row.text for row in read_texts(on) if row.text.strip()]
        return found, [on.name] * len(found)
    folder = on / "labelled" if (on / "labelled").is_dir() else on
    texts, sources = [], []
    for path in sorted(folder.glob("*/*.jsonl")):
        for row in held_out(path, rows):
            texts.append(row.text)
            sources.append(f"{path.parent.name}/{path.stem}")
    if not texts:
        raise InputError(f"{on} holds no CONCEPT/SOURCE.jsonl; give a file of texts or such a folder")
    return texts, sources


def show_comparison(console: Console, found: Compared, show: int) -> None:
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


def _row(change: Change) -> list[str]:
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


def _show_texts(console: Console, found: Compared, change: Change, most: int) -> None:
    for name, which in (("only A", change.only_a), ("only B", change.only_b)):
        if which:
            console.print(Text(f"{change.rule}, {name} ({len(which)})", "bold"))
        for i in which[:most]:
            line = one_line(found.texts[i][:SHOWN])
            console.print(Text.assemble(("  " + found.sources[i] + "  ", "dim"), line), soft_wrap=True)


def as_record(found: Compared, show: int) -> str:
    """Everything as JSON; texts only where they were asked for."""

    def flips(which: Sequence[int]) -> dict[str, object]:
        rows = [{"text": found.texts[i], "source": found.sources[i]} for i in which[:show]]
        return {"count": len(which), "indices": list(which), **({"texts": rows} if show else {})}

    def record(change: Change) -> dict[str, object]:
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
    return json.dumps(
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
        indent=1,
        ensure_ascii=False,
    )


def outcomes(policies: PolicySet, read: TextReadings, phase: Phase) -> list[Outcome]:
    """Detections and action of each text, as the running rules give them."""
    return [_outcome(policies, columns(read, text, policies.watch), phase) for text in range(len(read))]


def _outcome(policies: PolicySet, rows: NDArray[np.float32], phase: Phase) -> Outcome:
    decision = policies.start(str).observe(TokenBlock(phase, 0, tuple(range(len(rows))), rows))
    return Outcome(frozenset(f"{d.policy}/{d.rule}" for d in decision.detections), decision.action)
