"""`sae-monitor policy cost`: the flags, and where the reports go."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    Dtype,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.policy.data_flags import AboutOption, ManifestOption, SplitSeedOption, data_folder
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.progress import steps_of
from monitor.errors import InputError, PolicyError

if TYPE_CHECKING:
    from monitor.lab.cost.report import CostReport
    from monitor.lab.cost.study import CostStudy
    from monitor.lab.pair import Pair


def cost(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Name of the policy.",
            show_default="every policy of the folder that suppresses and has texts",
        ),
    ] = None,
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
    minimal_pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measure on these minimal pairs (BLiMP; JSON lines of good, bad and paradigm) how much grammar "
            "an edit costs.",
            show_default="not measured",
        ),
    ] = None,
    per_paradigm: Annotated[
        int, typer.Option(min=1, help="Take at most so many minimal pairs of every paradigm.")
    ] = 5,
    edit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this edit, as the report calls it, such as 'policy' or 'difference of means'. Repeatable.",
            show_default="all",
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write NAME.cost.json, .md and .png there."),
    ] = Path(),
    seed: Annotated[
        int, typer.Option(help="Draw everything random from this number; the same gives the same report.")
    ] = 0,
    device: DeviceOption = "auto",
    dtype: Dtype = None,
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Measure what suppression does and what it costs, beside a dense direction and other rivals.

    Writes NAME.cost.json, .md and .png for each policy, and suppression.md with one table of all where several are
    measured.
    """
    from monitor.lab.cost.study import CostSizes, CostStudy, suppressing

    started = time.monotonic()
    data = None
    if labelled is not None:
        data = data_folder(
            labelled, manifest, about=about, train_fraction=train_fraction, split_seed=split_seed
        )
    folder = policies or _bundled()
    studies = [
        CostStudy(
            folder,
            one,
            sorted(set(target or (0.0, -0.5, -1.0, -2.0)), reverse=True),
            CostSizes(prompts, head, new, texts, texts, temperature, seed, per_paradigm),
            budget,
            data,
            benign or (),
            minimal_pairs,
            edit or (),
        )
        for one in ([name] if name is not None else suppressing(folder))
    ]
    for study in studies:
        study.check()
    for note in data.notes if data is not None else ():
        stderr_console().print(note, soft_wrap=True)
    pair = opened_pair(
        model,
        dictionary,
        dictionary_format,
        device,
        pair_name=pair_name,
        skip_self_test=skip_self_test,
        dtype=dtype or "auto",
    )
    reports = []
    for study in studies:
        if (report := _measured(study, pair, alone=name is not None)) is not None:
            written = _written(report, output)
            stdout_console().print(f"{written} written in {time.monotonic() - started:.0f} s", soft_wrap=True)
            reports.append(report)
    if name is None:
        _overview(reports, output)


def _measured(study: CostStudy, pair: Pair, *, alone: bool) -> CostReport | None:
    """What a study found; None where it is one of several and its policy cannot be measured, which is said."""
    try:
        with steps_of("reading the policies") as step:
            return study.run(pair, step)
    except (InputError, PolicyError) as error:
        if alone:
            raise
        stderr_console().print(f"{study.name} is left out: {error}", soft_wrap=True)
        return None


def _overview(reports: list[CostReport], output: Path) -> None:
    """One table of all policies, shown and written."""
    from monitor.lab.cost.report import OVERVIEW_HEADS, overview, overview_page

    if not reports:
        raise InputError("no policy could be measured; name a folder of labelled texts with --labelled")
    _show("what suppression does and costs", OVERVIEW_HEADS, overview(reports))
    path = output / "suppression.md"
    path.write_text(overview_page(reports), encoding="utf-8")
    stdout_console().print(f"{path} written", soft_wrap=True)


def _show(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(*heads, title=title)
    for row in rows:
        table.add_row(*row)
    stdout_console().print(table)


def _written(report: CostReport, output: Path) -> Path:
    """Show the report and write its three files; gives the one of Markdown."""
    from monitor.lab.cost.picture import draw_cost
    from monitor.lab.cost.report import EQUAL_HEADS, HEADS

    _show(f"{report.policy}: effect and damage", HEADS, report.rows())
    if report.equal_kl:
        _show(f"{report.policy}: at equal KL, in points", EQUAL_HEADS, report.equal_rows())
    for line in report.recommendation():
        if line:
            stdout_console().print(line.replace("**", "").replace("`", ""), soft_wrap=True)
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
