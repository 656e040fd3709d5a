"""The texts that the cost of a suppression is measured on, so that nothing is measured on what it was made with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import InputError
from monitor.lab.data_folder import DataFolder, LabelledFile
from monitor.lab.splits import Side
from monitor.lab.texts import LabelledText
from monitor.policy.files.benign import read_benign
from monitor.policy.files.examples import BENIGN_FILE, Label
from monitor.policy.files.source import Source

REPLY = "\n\nAssistant: "
LEAST = 24
"""Fewest positives that can be measured on."""


TAUGHT = 600
"""Most rows of each label that a judge learns from, and a dense direction beside the policy's own examples."""


@dataclass(frozen=True, slots=True)
class BehaviourRow:
    """A labelled text; rows of one group are never split."""

    text: str
    positive: bool
    group: str
    source: str


@dataclass(frozen=True)
class CostTexts:
    """The texts of a measurement of cost."""

    taught: Sequence[BehaviourRow]
    """What the classifier of behaviour learns from."""
    measured: Sequence[BehaviourRow]
    """Positives among them are read under edits, and their beginnings are continued."""
    learnt: Sequence[BehaviourRow]
    """What the dense direction is the difference of means of."""
    benign: Sequence[str]
    held_out: bool
    """True where the policy was fitted with neither `taught` nor `measured`."""
    note: str
    """Where the texts come from."""


def cost_texts(source: Source, data: DataFolder | None, benign: Sequence[str]) -> CostTexts:
    """Texts for a policy: rows of labelled sources about it that no fit has read, or without any its own examples.

    Raises InputError where there are too few.
    """
    own = [
        BehaviourRow(e.text, e.label is Label.POSITIVE, f"own {e.group}", "examples") for e in source.examples
    ]
    calm = list(benign) or _benign(source.path.parent / BENIGN_FILE)
    meta = source.model.metadata
    if data is None:
        taught, measured = _halves(own)
        note = (
            "the policy's own examples, which it was fitted with: name --labelled for an honest measurement"
        )
        found = CostTexts(taught, measured, own, calm, False, note)
    else:
        rows = behaviour_rows(data, meta.name, meta.category)
        taught, measured = _halves([row for row, side in rows if side == "heldout"])
        taught = _some(taught)
        learnt = own + _some([row for row, side in rows if side == "train"])
        count = len({row.source for row, _ in rows})
        counted = f"{count} {'source' if count == 1 else 'sources'}"
        note = f"the rows of {counted} about {meta.category} that no fit has read"
        found = CostTexts(taught, measured, learnt, calm, True, note)
    for rows_of, what in ((found.taught, "teach a classifier"), (found.measured, "measure on")):
        if sum(row.positive for row in rows_of) < LEAST or all(row.positive for row in rows_of):
            raise InputError(
                f"{sum(row.positive for row in rows_of)} positives of {meta.category} are too few to {what}; give at "
                f"least {2 * LEAST} examples, or name a folder of labelled texts with --labelled"
            )
    return found


def behaviour_rows(data: DataFolder, policy: str, category: str) -> list[tuple[BehaviourRow, Side]]:
    """Rows about a policy and the side of the split that each is on; of conversations the last reply alone.

    Sources that nothing may be learnt from are left out. InputError where the folder has nothing about the policy.
    """
    sources = [source for source in data.about(policy, category) if source.learn != "none"]
    if not sources:
        subjects = ", ".join(sorted({name for source in data.sources for name in source.about}))
        raise InputError(
            f"no labelled file in {data.folder} is about {policy} or {category}; they are about {subjects}: put one "
            f"into a folder called {category}, or say it with --about"
        )
    found = [
        (_row(source, row), data.split.side(source.stem, row.group, row.text))
        for source in sources
        for row in source.rows
    ]
    return [(row, side) for row, side in found if row.text.strip()]


def spread(rows: Sequence[BehaviourRow], most: int) -> list[BehaviourRow]:
    """At most so many rows, in equal shares of their sources, in an order made by hashing."""
    by_source: dict[str, list[BehaviourRow]] = {}
    for row in sorted(rows, key=lambda row: _hash(row.text)):
        by_source.setdefault(row.source, []).append(row)
    taken: list[BehaviourRow] = []
    while len(taken) < most and any(by_source.values()):
        for own in by_source.values():
            if own and len(taken) < most:
                taken.append(own.pop())
    return taken


def _some(rows: Sequence[BehaviourRow]) -> list[BehaviourRow]:
    """At most `TAUGHT` rows of each label: the model reads them all, and means hardly change with more."""
    return [
        row for label in (True, False) for row in spread([r for r in rows if r.positive is label], TAUGHT)
    ]


def _row(source: LabelledFile, row: LabelledText) -> BehaviourRow:
    return BehaviourRow(row.text.rsplit(REPLY, 1)[-1], bool(row.label), source.group_of(row), source.stem)


def _halves(rows: Sequence[BehaviourRow]) -> tuple[list[BehaviourRow], list[BehaviourRow]]:
    first = [row for row in rows if _hash(row.group)[0] % 2 == 0]
    return first, [row for row in rows if _hash(row.group)[0] % 2]


def _benign(path: Path) -> list[str]:
    if not path.exists():
        raise InputError(f"no benign texts: write {path}, or name a file with --benign")
    return list(read_benign(path))


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
