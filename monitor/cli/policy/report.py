"""`sae-monitor policy report`: the flags, and where the page goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from monitor.cli.opened_pair import opened_pair
from monitor.cli.options import (
    DeviceOption,
    DictionaryOption,
    FormatOption,
    ModelOption,
    PairOption,
    SkipSelfTestOption,
)
from monitor.cli.output import writable, write_text
from monitor.cli.policy.data_flags import (
    AboutOption,
    BenignFilesOption,
    FalsePositivesOption,
    LabelledOption,
    LeaveOutOption,
    ManifestOption,
    PerhapsDataOption,
    SplitSeedOption,
    TrainFractionOption,
    data_folder,
)
from monitor.cli.policy.evaluate import RowsOption, TextsOption
from monitor.cli.show.console import stderr_console
from monitor.cli.show.progress import steps_of


def report(
    policies: Annotated[Path, typer.Argument(help="Folder of fitted policies.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Write the page to this HTML file.")] = Path(
        "policies.html"
    ),
    data: PerhapsDataOption = None,
    manifest: ManifestOption = None,
    labelled: LabelledOption = None,
    benign: BenignFilesOption = None,
    false_positives: FalsePositivesOption = None,
    leave_out: LeaveOutOption = None,
    about: AboutOption = None,
    train_fraction: TrainFractionOption = None,
    split_seed: SplitSeedOption = None,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    rows: RowsOption = 200,
    texts: TextsOption = 200,
    show: Annotated[
        int, typer.Option(min=0, max=50, help="Show at most so many hits, misses and false alarms each.")
    ] = 4,
    title: Annotated[str, typer.Option(help="Write this as the page's title.")] = "Policy report",
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Write one self-contained HTML page: cards, curves, per-source tables, and token heat maps of hits and misses.

    With `--data` everything is measured on texts that no fit has seen; without, the page shows cards and the
    policies' own examples.
    """
    from monitor.lab.policy_evaluation import PolicyEvaluator
    from monitor.lab.report import build_report
    from monitor.policy.report import page

    writable(output)
    folder = None
    if data is not None:
        folder = data_folder(
            data,
            manifest,
            labelled=labelled,
            benign=benign,
            false_positives=false_positives,
            leave_out=leave_out,
            about=about,
            train_fraction=train_fraction,
            split_seed=split_seed,
        )
    evaluator = PolicyEvaluator(
        opened_pair(
            model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
        ),
        policies,
    )
    with steps_of("reading the policies") as step:
        found = build_report(evaluator, folder, rows=rows, texts=texts, show=show, title=title, progress=step)
    write_text(output, page(found))
    stderr_console().print(f"{output} written ({output.stat().st_size // 1024} KiB)", soft_wrap=True)
