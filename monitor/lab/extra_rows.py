"""Further labelled rows for a fit: the training half of a folder of labelled sources.

Knows the folder's layout (`CATEGORY/SOURCE.jsonl`, rows of text, label, group) and which half may be learnt from.
Does not know what is done with the rows; only numbers ever leave a fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import InputError
from monitor.lab.splits import LabelledRow, labelled_rows, split_of
from monitor.policy.fit import LabelledTexts

ROWS = 500
"""Most rows of a category, in equal shares of its sources and of both labels."""
LONGEST = 400
"""Characters that are read of a row."""
BLURRED = frozenset({"lie_detector_v1", "caa", "bbq_age", "bbq_disability_status", "bbq_nationality"})
"""Sources whose labels turn on facts or on being asked, which no feature of a statement can carry."""
RESTRICTED = frozenset({"refusal_direction_train"})
"""Sources whose negatives may be measured with and not learnt from."""

NARROW = {"sven": "unsafe-code-vulnerability", "cyberseceval_instruct": "unsafe-code-vulnerability"}
"""Sources that speak of one policy of their category only."""
BORROWED = {"manipulation": ("deception/persona_willingness_to_use_social_engineering_to_achieve_its_goals",)}
"""Sources that speak of a category besides the one in whose folder they lie."""


def sources_of(folder: Path, policy: str, category: str) -> list[Path]:
    """The labelled sources that say something about a policy; empty where the folder has none."""
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; give the folder that holds CATEGORY/SOURCE.jsonl")
    own = sorted((folder / category).glob("*.jsonl"))
    borrowed = [folder / f"{name}.jsonl" for name in BORROWED.get(category, ())]
    found = [*own, *(path for path in borrowed if path.exists())]
    return [path for path in found if NARROW.get(path.stem, policy) == policy]


def extra_rows(folder: Path, policy: str, category: str) -> LabelledTexts:
    """Rows of the training half for a policy; empty where the folder has nothing on it."""
    rows: list[tuple[str, bool, str]] = []
    paths = [path for path in sources_of(folder, policy, category) if path.stem not in BLURRED]
    for path in paths:
        rows.extend(_source(path, ROWS // len(paths)))
    return LabelledTexts([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


@dataclass(frozen=True)
class HeldOutRow:
    """A labelled row that nothing learns from."""

    text: str
    positive: bool
    group: str


def held_out(path: Path, most: int, *, whole: bool = False) -> Iterator[HeldOutRow]:
    """Rows of the half of a source that no fit reads, in equal shares of both labels; all of it where `whole`."""
    rows = [row for row in labelled_rows(path) if row["text"].strip()]
    kept = [row for row in rows if whole or split_of(path.stem, row["group"], row["text"]) == "heldout"]
    kept.sort(key=lambda row: hashlib.sha256(row["text"].encode()).digest())
    for label in (1, 0):
        mine = [row for row in kept if row["label"] == label]
        for row in mine if whole else mine[: most // 2]:
            yield HeldOutRow(row["text"], bool(label), _group(path.stem, row))


def _source(path: Path, most: int) -> list[tuple[str, bool, str]]:
    kept = [row for row in labelled_rows(path) if _usable(path.stem, row)]
    kept.sort(key=lambda row: hashlib.sha256(row["text"].encode()).digest())
    chosen = [[row for row in kept if row["label"] == label][: most // 2] for label in (1, 0)]
    return [
        (row["text"][:LONGEST], bool(row["label"]), _group(path.stem, row)) for rows in chosen for row in rows
    ]


def _usable(source: str, row: LabelledRow) -> bool:
    learnable = source not in RESTRICTED or row["label"] == 1
    return learnable and bool(row["text"].strip()) and split_of(source, row["group"], row["text"]) == "train"


def _group(source: str, row: LabelledRow) -> str:
    """Pairs share a group; where a whole source is one group, every row is its own."""
    whole = row["group"].replace("-", "_")
    return f"{source} {row['text']}" if source.endswith(whole) else f"{source} {row['group']}"
