"""`sae-monitor policy evaluate`: the flags, and where the tables go."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
from monitor.cli.output import writable, write_text
from monitor.cli.policy.data_flags import (
    AboutOption,
    BenignFilesOption,
    DataOption,
    FalsePositivesOption,
    LabelledOption,
    LeaveOutOption,
    ManifestOption,
    SplitSeedOption,
    TrainFractionOption,
    data_folder,
)
from monitor.cli.show.console import stderr_console, stdout_console
from monitor.cli.show.progress import steps_of

RowsOption = Annotated[
    int, typer.Option(min=50, help="Read at most so many rows of each labelled source, half of each label.")
]
FEWEST_ROWS = 50
RowsOrNoneOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="Read at most so many rows of each labelled source, half of each label; 50 or more, or 0 to count "
        "false positives alone, which takes minutes less.",
    ),
]
TextsOption = Annotated[
    int, typer.Option(min=50, help="Read at most so many texts of each file of --false-positives.")
]


def evaluate(
    policies: Annotated[Path, typer.Argument(help="Folder of fitted policies.")],
    data: DataOption,
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
    rows: RowsOrNoneOption = 400,
    texts: TextsOption = 400,
    as_json: JsonOption = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the tables to this file instead of standard output."),
    ] = None,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Measure every policy on labelled sources, and its false positives on benign text.

    Prints Markdown: all cards, each policy on each source about it beside the baselines, and how the fitted rate of
    false positives holds by length.
    """
    from monitor.lab.evaluation_results import as_markdown, as_record
    from monitor.lab.policy_evaluation import evaluate as measure

    if 0 < rows < FEWEST_ROWS:
        raise typer.BadParameter(f"{rows} is too few; write {FEWEST_ROWS} or more, or 0", param_hint="--rows")
    writable(output)
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
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    with steps_of("reading the policies") as step:
        found = measure(pair, policies, folder, rows=rows, texts=texts, progress=step)
    text = as_record(found) if as_json else as_markdown(found)
    if output is not None:
        write_text(output, text)
        stderr_console().print(f"{output} written", soft_wrap=True)
    else:
        stdout_console().print(text, soft_wrap=True, end="")
