"""`sae-monitor demo --steer`: what clamping one feature does to what the model writes, in tables and samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from monitor.cli.demo.view import heading
from monitor.cli.errors import ExitCode
from monitor.cli.show.printable import printable
from monitor.cli.show.progress import steps_of

if TYPE_CHECKING:
    from monitor.lab.demonstrations.demonstration import Demonstration
    from monitor.lab.demonstrations.study import Demonstrated, DemonstrationSizes
    from monitor.lab.pair import Pair

EVERY = "all"


def chosen(names: Sequence[str]) -> list[Demonstration]:
    """The demonstrations of these names, all for `all`. NotFound for another name."""
    from monitor.lab.demonstrations.catalogue import ALL, demonstration

    if EVERY in names:
        return list(ALL)
    return [demonstration(name) for name in dict.fromkeys(names)]


def steer(
    console: Console,
    pair: Pair,
    asked: Sequence[Demonstration],
    sizes: DemonstrationSizes,
    output: Path | None,
) -> ExitCode:
    """Carry out demonstrations, show each when it is done, and write the page; 1 where one worked on no prompt."""
    from monitor.lab.demonstrations.report import HEADS, as_json, page, rows
    from monitor.lab.demonstrations.study import demonstrate

    found: list[Demonstrated] = []
    for one in asked:
        with steps_of(f"{one.name}: reading its texts") as step:
            found.append(demonstrate(pair, one, sizes, step))
        console.print(shown(found[-1]))
    console.print(heading("All of them"))
    console.print(_table(HEADS, rows(found)))
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        subject = sizes.subject(pair)
        (output / "demonstrations.md").write_text(page(found, subject), encoding="utf-8")
        (output / "demonstrations.json").write_text(as_json(found, subject), encoding="utf-8")
        console.print(f"{output / 'demonstrations.md'} written", soft_wrap=True)
    return ExitCode.CLEAN if all(any(one.worked) for one in found) else ExitCode.MATCHED


def shown(one: Demonstrated) -> RenderableType:
    """One demonstration: its feature, the slider, and samples."""
    from monitor.lab.demonstrations.report import samples, slider_heads, slider_rows

    candidate = one.choice.chosen
    said = (
        f"feature {candidate.feature} {candidate.label}".strip()
        + f", AUROC {candidate.auroc:.2f} on the texts of the contrast; shown: the answer "
        + one.demonstration.judgement.says
    )
    parts: list[RenderableType] = [
        heading(one.demonstration.title),
        Text(printable(said), "dim"),
        Padding(_table(slider_heads(one), slider_rows(one)), (1, 0)),
        Text(f"worked on {sum(one.worked)} of {len(one.worked)} prompts at {one.choice.setting}", "bold"),
    ]
    for prompt, plain, text, worked in samples(one):
        mark = ("  ✓ ", "green") if worked else ("  ✗ ", "bold red")
        parts.append(Text.assemble("\n", mark, (printable(prompt), "bold")))
        parts.append(Text(f"    without: {printable(plain)}", "dim"))
        parts.append(Text(f"    with:    {printable(text)}"))
    return Group(*parts)


def _table(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> Table:
    table = Table(*heads, box=None, padding=(0, 2, 0, 0))
    for row in cells:
        table.add_row(*(Text(printable(cell)) for cell in row))
    return table
