"""Which texts the cost of a suppression is measured on, so that nothing is measured on what it was made with.

Knows the folder of labelled sources, its halves, and the policy's own examples. Does not know models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import InputError
from monitor.lab.extra_rows import BLURRED
from monitor.lab.splits import LabelledRow, labelled_rows, split_of
from monitor.policy.files.examples import BENIGN_FILE, Label, read_benign
from monitor.policy.files.source import Source

REPLY = "\n\nAssistant: "
LEAST = 24
"""Fewest positives that can be measured on."""


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled text; rows of one group are never split."""

    text: str
    positive: bool
    group: str
    source: str


@dataclass(frozen=True)
class CostTexts:
    """Everything that is read."""

    judge: Sequence[Row]
    """What the classifier of behaviour learns from."""
    measured: Sequence[Row]
    """Positives among them are read under edits, and their beginnings are continued."""
    learnt: Sequence[Row]
    """What the dense direction is the difference of means of."""
    benign: Sequence[str]
    held_out: bool
    """True where the policy was fitted with neither `judge` nor `measured`."""
    note: str
    """Where the texts come from."""


def cost_texts(source: Source, labelled: Path | None, benign: Sequence[str]) -> CostTexts:
    """Texts for a policy. With a folder `CATEGORY/SOURCE.jsonl`, the half of it that no fit reads; else its examples.

    Raises InputError where there are too few.
    """
    own = [Row(e.text, e.label is Label.POSITIVE, f"own {e.group}", "examples") for e in source.examples]
    calm = list(benign) or _benign(source.path.parent / BENIGN_FILE)
    category = source.model.metadata.category
    if labelled is None:
        judge, measured = _halves(own)
        note = (
            "the policy's own examples, which it was fitted with: name --labelled for an honest measurement"
        )
        found = CostTexts(judge, measured, own, calm, False, note)
    else:
        rows = labelled_rows_of(labelled, category)
        judge, measured = _halves([row for row, split in rows if split == "heldout"])
        learnt = own + [row for row, split in rows if split == "train"]
        note = f"the half of {len({row.source for row, _ in rows})} sources of {category} that no fit reads"
        found = CostTexts(judge, measured, learnt, calm, True, note)
    for rows_of, what in ((found.judge, "teach a classifier"), (found.measured, "measure on")):
        if sum(row.positive for row in rows_of) < LEAST or all(row.positive for row in rows_of):
            raise InputError(
                f"{sum(row.positive for row in rows_of)} positives of {category} are too few to {what}; give at least "
                f"{2 * LEAST} examples, or name a folder of labelled texts with --labelled"
            )
    return found


def labelled_rows_of(folder: Path, category: str) -> list[tuple[Row, str]]:
    """Rows of a category and the half that each belongs to; of conversations the reply alone."""
    if not (folder / category).is_dir():
        raise InputError(
            f"no folder {category} in {folder}; give the folder that holds CATEGORY/SOURCE.jsonl"
        )
    found: list[tuple[Row, str]] = []
    for path in sorted((folder / category).glob("*.jsonl")):
        if path.stem not in BLURRED:
            found.extend(
                (_row(path.stem, row), split_of(path.stem, row["group"], row["text"]))
                for row in labelled_rows(path)
            )
    return [(row, split) for row, split in found if row.text.strip()]


def spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many rows, in equal shares of their sources, in an order made by hashing."""
    by_source: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: _hash(row.text)):
        by_source.setdefault(row.source, []).append(row)
    taken: list[Row] = []
    while len(taken) < most and any(by_source.values()):
        for own in by_source.values():
            if own and len(taken) < most:
                taken.append(own.pop())
    return taken


def _row(source: str, row: LabelledRow) -> Row:
    text = row["text"].rsplit(REPLY, 1)[-1]
    whole = source.endswith(row["group"].replace("-", "_"))
    return Row(text, bool(row["label"]), f"{source} {row['text'] if whole else row['group']}", source)


def _halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    first = [row for row in rows if _hash(row.group)[0] % 2 == 0]
    return first, [row for row in rows if _hash(row.group)[0] % 2]


def _benign(path: Path) -> list[str]:
    if not path.exists():
        raise InputError(f"no benign texts: write {path}, or name a file with --benign")
    return list(read_benign(path))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
