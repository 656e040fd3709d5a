"""`features evaluate`: the flags, and the files that come out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from monitor.cli.policy.data_flags import (
    PANEL,
    LabelledOption,
    LeaveOutOption,
    ManifestOption,
    SplitSeedOption,
    data_folder,
)
from monitor.cli.show.console import stdout_console
from monitor.cli.show.progress import followed

if TYPE_CHECKING:
    from monitor.dictionary.evaluation.source import LabelledSource


def evaluate(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Measure on the files of this folder: .jsonl or .csv rows of text, label (1 or 0) and, where known, "
            "group; also packed as .xz or .gz. The folder in which a file lies is its concept.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Write evaluation.md, evaluation.json and clearest.md to this folder."
        ),
    ],
    manifest: ManifestOption = None,
    labelled: LabelledOption = None,
    benign: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Call no feature clear that fires on these benign requests. Repeatable. Default: the files whose "
            "labels are all 0.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    leave_out: LeaveOutOption = None,
    train_fraction: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=0.95,
            help="Fit detectors on this share of the groups of each source; measure them on the rest. Default: half.",
        ),
    ] = None,
    split_seed: SplitSeedOption = None,
    pair_name: PairOption = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    rows: Annotated[int, typer.Option(min=100, help="Read at most so many rows of each source.")] = 1000,
    features: Annotated[
        int, typer.Option(min=1, help="Let the sparse rule read at most so many features.")
    ] = 128,
    longest: Annotated[int, typer.Option(min=8, help="Read at most so many tokens of a text.")] = 256,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Measure on this source, or on all of this folder. Repeatable."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Fit so many sources at the same time.")] = 2,
    device: DeviceOption = "auto",
    skip_self_test: SkipSelfTestOption = False,
) -> None:
    """Measure features on labelled texts: best single one, sparse rule and dense rule, beside three baselines.

    The baselines are a linear probe, the difference of means and a bag of words. Rows are split by group; without
    --train-fraction and --split-seed as the bundled model's training split them, so that what is measured was never
    trained on.
    """
    from monitor.lab.feature_evaluation import evaluate_features

    folder = data_folder(
        data,
        manifest,
        labelled=labelled,
        benign=benign,
        leave_out=leave_out,
        train_fraction=train_fraction,
        split_seed=split_seed,
    )
    out.mkdir(parents=True, exist_ok=True)
    pair = opened_pair(
        model, dictionary, dictionary_format, device, pair_name=pair_name, skip_self_test=skip_self_test
    )
    found = evaluate_features(
        pair,
        folder,
        only=only or (),
        rows=rows,
        features=features,
        longest=longest,
        jobs=jobs,
        progress=_tracked,
    )
    (out / "evaluation.md").write_text(str(found), "utf-8")
    (out / "clearest.md").write_text(found.portrayed(), "utf-8")
    (out / "evaluation.json").write_text(found.as_json(), "utf-8")
    stdout_console().print(str(found), soft_wrap=True)


def _tracked(sources: Sequence[LabelledSource]) -> Iterable[LabelledSource]:
    """The sources, with progress of what is read and fitted of them."""
    return followed(sources, "reading and fitting", len(sources), "sources")
