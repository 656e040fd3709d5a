"""`sae-monitor policy cost`: the flags, and where the reports go."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.policy.data_flags import AboutOption, ManifestOption, SplitSeedOption, data_folder
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.progress import steps_of

if TYPE_CHECKING:
    from monitor.lab.cost.report import CostReport


def cost(
    name: Annotated[str, typer.Argument(help="Name of the policy.")],
    policies: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Take the policy from this folder.", show_default="the bundled policies"
        ),
    ] = None,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Measure on the labelled files of this folder that are about the policy, instead of on its own "
            "examples: rows of text, label (1 or 0) and, where known, group.",
        ),
    ] = None,
    manifest: ManifestOption = None,
    about: AboutOption = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Leave out this share of the groups, as the fit has read them (`policy fit --train-fraction`); only "
            "the dense direction is made from them. Default: measure on every row.",
        ),
    ] = None,
    split_seed: SplitSeedOption = None,
    benign: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Measure perplexity on these files of benign texts instead of the policies' benign.jsonl. Repeatable.",
        ),
    ] = None,
    target: Annotated[
        list[float] | None,
        typer.Option(
            help="Try this target, in units of the features' maxima. Repeatable.",
            show_default="0, -0.5, -1 and -2",
        ),
    ] = None,
    prompts: Annotated[
        int, typer.Option(min=20, help="Continue the beginnings of so many held-out positives.")
    ] = 120,
    new: Annotated[int, typer.Option(min=4, max=256, help="Write so many tokens behind each.")] = 24,
    head: Annotated[
        int,
        typer.Option(min=2, max=32, help="Take so many tokens for a beginning, the start token included."),
    ] = 5,
    texts: Annotated[
        int, typer.Option(min=20, help="Read at most so many held-out positives, and as many benign texts.")
    ] = 120,
    temperature: Annotated[
        float, typer.Option(min=0, help="Draw continuations at this temperature; 0 is greedy.")
    ] = 0.8,
    budget: Annotated[
        float,
        typer.Option(
            min=0, help="Recommend no target that raises benign perplexity by more than this share."
        ),
    ] = 0.02,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write NAME.cost.json, .md and .png there."),
    ] = Path(),
    seed: Annotated[
        int, typer.Option(help="Draw everything random from this number; the same gives the same report.")
    ] = 0,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Measure what a policy's suppression does and what it costs, beside a dense direction and other rivals."""
    from monitor.lab.cost.study import CostSizes, CostStudy

    started = time.monotonic()
    data = None
    if labelled is not None:
        data = data_folder(
            labelled, manifest, about=about, train_fraction=train_fraction, split_seed=split_seed
        )
    study = CostStudy(
        policies or _bundled(),
        name,
        sorted(set(target or (0.0, -0.5, -1.0, -2.0)), reverse=True),
        CostSizes(prompts, head, new, texts, texts, temperature, seed),
        budget,
        data,
        benign or (),
    )
    study.check()
    for note in data.notes if data is not None else ():
        stderr_console().print(note, soft_wrap=True)
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    with steps_of("reading the policies") as step:
        report = study.run(pair, step)
    written = _written(report, output)
    stdout_console().print(f"{written} written in {time.monotonic() - started:.0f} s", soft_wrap=True)


def _written(report: CostReport, output: Path) -> Path:
    """Show the report and write its three files; gives the one of Markdown."""
    from monitor.lab.cost.picture import draw_cost
    from monitor.lab.cost.report import HEADS

    console = stdout_console()
    table = Table(*HEADS, title=f"{report.policy}: effect and damage")
    for row in report.rows():
        table.add_row(*row)
    console.print(table)
    for line in report.recommendation():
        if line:
            console.print(line.replace("**", "").replace("`", ""), soft_wrap=True)
    output.mkdir(parents=True, exist_ok=True)
    name = report.policy
    picture = draw_cost(report.points, f"{name}: effect against damage", output / f"{name}.cost.png")
    (output / f"{name}.cost.json").write_text(report.as_json(), encoding="utf-8")
    path = output / f"{name}.cost.md"
    path.write_text(report.markdown(picture), encoding="utf-8")
    return path


def _bundled() -> Path:
    from monitor.rpc.assembly import bundled_policies

    return bundled_policies()
