"""`sae-monitor dictionary verify`: measures what a dictionary does on a model, compares it with what it should do, and
records it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from monitor.cli.errors import ExitCode
from monitor.cli.opened_pair import opened_untested, what_runs
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    JsonOption,
    ModelOption,
    PairOption,
)
from monitor.cli.show.console import stdout_console

if TYPE_CHECKING:
    from monitor.model.runtime import LoadedPair
    from monitor.model.selftest.result import SelfTest


def verify(
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    layer: Annotated[
        int | None, typer.Option(help="Decoder layer to read, counted from 0. Default: the dictionary's.")
    ] = None,
    device: DeviceOption = "auto",
    dtype: Annotated[
        str, typer.Option(help="Number type of the model's weights: auto, float32, bfloat16 or float16.")
    ] = "auto",
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Record what is measured even where it differs from an older record."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Test that a dictionary fits a model, and record what was measured as verified.json beside the dictionary.

    The model reads a fixed set of texts. Sparsity and explained variance are compared with an earlier record, or with
    what the dictionary's makers state. Where they differ, usual mistakes are undone one by one to find the cause:
    layer, hook point, BOS, scaling, activation function, biases. Every later start of `serve` is compared with the
    record. Exit codes: 0 as expected (and recorded), 1 not as expected, 2 an error.
    """
    from monitor.model.selftest.self_test import self_test
    from monitor.model.selftest.verified_records import save_record

    parts = _parts(pair_name, model, dictionary, dictionary_format, layer, device, dtype)
    test = self_test(parts, thorough=True, records=() if replace else None)
    saved = save_record(parts.dictionary.path, test.record) if test.passed or replace else None
    if as_json:
        typer.echo(json.dumps(_as_json(test, saved)))
    else:
        _print(stdout_console(), parts, test, saved)
    if saved is None:
        raise typer.Exit(ExitCode.MATCHED)


def _parts(
    pair_name: str | None,
    model: str | None,
    dictionary: Path | None,
    format: str | None,
    layer: int | None,
    device: str,
    dtype: str,
) -> LoadedPair:
    """The pair with or without statistics: verifying is what one does first."""
    from monitor.model.runtime import LoadedPair

    pair = opened_untested(what_runs(model, dictionary, format, pair_name, device, dtype, layer))
    return LoadedPair(pair.loaded, pair.dictionary, pair.harvester.place)


def _print(console: Console, parts: LoadedPair, test: SelfTest, saved: Path | None) -> None:
    loaded, record = parts.loaded, test.record
    console.print(f"model       {loaded.name}  {record.dtype} on {loaded.devices}")
    console.print(f"dictionary  {parts.dictionary.path}  {parts.dictionary.autoencoder.features} features")
    console.print(f"place       {record.place}")
    console.print(f"texts       {test.measured.tokens} tokens after BOS")
    console.print(f"expected    {test.source}")
    console.print()
    console.print(_numbers(test))
    shown = {line.name for line in test.lines}
    for problem in test.problems:
        if problem.what.split(" is ")[0] in shown:
            continue
        console.print(Text.assemble(("wrong: ", "bold red"), problem.what), soft_wrap=True)
    if test.suspects:
        console.print("\nWhat was tried, first what restores the numbers:")
        console.print(_suspects(test))
        console.print(_advice(test), soft_wrap=True)
    console.print()
    _print_end(console, test, saved)


def _print_end(console: Console, test: SelfTest, saved: Path | None) -> None:
    if saved is None:
        console.print(
            Text.assemble((" NOT AS EXPECTED ", "bold #ffffff on #b3132b"), "  nothing was recorded")
        )
        console.print("If this is right after all, record it with --replace.")
        return
    mark = (" VERIFIED ", "bold #ffffff on #1f7a3d") if test.passed else (" RECORDED ", "bold")
    console.print(Text.assemble(mark, f"  recorded in {saved}"), soft_wrap=True)
    if test.expected.l0 is None and test.expected.explained_variance is None:
        console.print(
            "Nothing was declared to compare with: look at the numbers. A good dictionary of the residual stream "
            "explains 0.6 to 0.95 of the variance, and its makers say how many features are active."
        )


def _numbers(test: SelfTest) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("", "measured", "expected", "allowed", ""):
        table.add_column(name, justify="left" if not name else "right")
    for line in test.lines:
        known = line.expected is not None and bool(line.allowed)
        mark = "" if not known else ("ok" if line.off <= 1 else "off")
        expected = "" if line.expected is None else f"{line.expected:.4g}"
        style = "bold red" if mark == "off" else ""
        table.add_row(line.name, f"{line.measured:.4g}", expected, line.allowed, mark, style=style)
    return table


def _suspects(test: SelfTest) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("cause", "what was tried", "L0", "variance", "restores"):
        table.add_column(name, justify="right" if name in ("L0", "variance") else "left")
    for suspect in test.suspects:
        found = suspect.measured
        l0 = "" if found is None else f"{found.l0:.1f}"
        variance = "" if found is None else f"{found.explained_variance:.3f}"
        restores = "seen" if found is None else ("yes" if suspect.restores else "no")
        table.add_row(str(suspect.cause), suspect.what, l0, variance, restores)
    return table


def _advice(test: SelfTest) -> str:
    from monitor.model.selftest.causes import ADVICE

    if test.causes:
        return f"To do: {ADVICE[test.causes[0].cause]}"
    return "Nothing that was tried restores the numbers, so no cause is known."


def _as_json(test: SelfTest, saved: Path | None) -> dict[str, Any]:
    lines = [asdict(line) for line in test.lines]
    return {
        "passed": test.passed,
        "recorded": None if saved is None else str(saved),
        "expected_from": str(test.expected.source),
        "record": asdict(test.record),
        "lines": lines,
        "problems": [asdict(problem) for problem in test.problems],
        "suspects": [
            {"cause": str(one.cause), "tried": one.what, "off": one.off, "restores": one.restores}
            for one in test.suspects
        ],
    }
