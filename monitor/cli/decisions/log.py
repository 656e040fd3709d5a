"""The decision log that a command reads: its folder, and its lines as records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from monitor.errors import InputError
from monitor.settings import decision_folder, load_settings, split_address
from monitor.telemetry.decisions.record import KIND, DecisionRecord, from_json

Log = Annotated[
    Path | None,
    typer.Option(
        "--log",
        metavar="FOLDER",
        help="Folder of the decision log. Default: the one that `sae-monitor serve` uses on this machine.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print each record as one line of JSON, as it is in the log.")
]


def log_folder(given: Path | None) -> Path:
    """The folder to read: the given one, else the one in the settings. Raises InputError where there is none."""
    settings = load_settings({"decision_log": None if given is None else str(given)})
    folder = decision_folder(settings, split_address(settings.listen)[1])
    if folder is None:
        raise InputError("the settings say that decisions are not logged; name a folder with --log")
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the one that the server was given with --log")
    return folder


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn an OSError in the block into an InputError. Ctrl-C ends it without a message."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None


def decisions(contents: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], DecisionRecord | None]]:
    """Every line with its record; None for lines that contain none, such as those that say how many are missing.

    Raises InputError for a record in a schema that this version cannot read.
    """
    for content in contents:
        if content.get("kind") != KIND:
            yield content, None
            continue
        try:
            yield content, from_json(content)
        except ValueError as error:
            raise InputError(f"record {content['seq']}: {error}") from None
