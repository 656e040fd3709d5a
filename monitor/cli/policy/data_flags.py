"""The flags that say what the files of a data folder are, for every command that measures on one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from monitor.errors import InputError

if TYPE_CHECKING:
    from monitor.lab.data_folder import DataFolder

PANEL = "What the labelled files are"

_DATA = typer.Option(
    "--data",
    metavar="FOLDER",
    help="Measure on the files of this folder: .jsonl or .csv rows of text, label (1 or 0) and, where known, group; "
    "also packed as .xz or .gz. Where neither a manifest nor the flags below say otherwise, a file is about the "
    "policies whose name or category its folder is called after, and files whose labels are all 0 are benign.",
)
DataOption = Annotated[Path, _DATA]
PerhapsDataOption = Annotated[Path | None, _DATA]
ManifestOption = Annotated[
    Path | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="Read what the files are from this YAML file. Default: manifest.yaml in the folder, if there is one. "
        "The flags below take the place of what it says.",
        rich_help_panel=PANEL,
    ),
]
LabelledOption = Annotated[
    list[str] | None,
    typer.Option(
        "--labelled",
        metavar="PATTERN",
        help="Measure on these files only, such as 'mail/*.csv'. Repeatable.",
        rich_help_panel=PANEL,
    ),
]
BenignFilesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--benign",
        metavar="PATTERN",
        help="Take these files for benign requests: recall is stated where 1 % of them fire. Repeatable.",
        rich_help_panel=PANEL,
    ),
]
FalsePositivesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--false-positives",
        metavar="PATTERN",
        help="Count on these benign documents how often rules fire, by length. Repeatable.",
        rich_help_panel=PANEL,
    ),
]
LeaveOutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--leave-out",
        metavar="PATTERN",
        help="Do not use these files. Repeatable.",
        rich_help_panel=PANEL,
    ),
]
AboutOption = Annotated[
    list[str] | None,
    typer.Option(
        "--about",
        metavar="PATTERN=NAME",
        help="Say that these files are about the policy NAME, or about all of the category NAME. Repeatable.",
        rich_help_panel=PANEL,
    ),
]
TrainFractionOption = Annotated[
    float | None,
    typer.Option(
        "--train-fraction",
        min=0,
        max=1,
        help="Leave out this share of the groups of rows and of the documents, as the fit has read them "
        "(`policy fit --train-fraction`). Default: measure on every labelled row, and on the half of the documents "
        "that `policy fit --benign` leaves out.",
        rich_help_panel=PANEL,
    ),
]
SplitSeedOption = Annotated[
    int | None,
    typer.Option(
        "--split-seed",
        help="Draw another split of the same size; give the fit and the evaluation the same number.",
        rich_help_panel=PANEL,
    ),
]


def data_folder(
    folder: Path,
    manifest: Path | None = None,
    *,
    labelled: Sequence[str] | None = None,
    benign: Sequence[str] | None = None,
    false_positives: Sequence[str] | None = None,
    leave_out: Sequence[str] | None = None,
    about: Sequence[str] | None = None,
    train_fraction: float | None = None,
    split_seed: int | None = None,
) -> DataFolder:
    """The folder as the flags say it is; InputError where it is not so."""
    from monitor.lab.data_folder import open_data

    subjects: dict[str, list[str]] = {}
    for entry in about or ():
        pattern, equals, name = entry.rpartition("=")
        if not (pattern and equals and name):
            raise InputError(f"--about {entry}: write PATTERN=NAME, such as 'mail/*.csv=scams'")
        subjects.setdefault(pattern, []).append(name)
    return open_data(
        folder,
        manifest=manifest,
        labelled=labelled or (),
        benign=benign or (),
        false_positives=false_positives or (),
        leave_out=leave_out or (),
        about=subjects,
        train_fraction=train_fraction,
        seed=split_seed,
    )
