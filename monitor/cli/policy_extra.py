"""Further labelled rows for a fit: the training half of a folder of labelled sources.

Knows the folder's layout (`CATEGORY/SOURCE.jsonl`, rows of text, label, group) and which half may be learnt from.
Does not know what is done with the rows; only numbers ever leave a fit.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from monitor.cli.errors import InputError
from monitor.demo.recipe.corpus import LabelledRow, labelled_rows
from monitor.demo.recipe.splits import split_of
from monitor.policy.fit import LabelledTexts

ROWS = 500
"""Most rows of a category, in equal shares of its sources and of both labels."""
LONGEST = 400
"""Characters that are read of a row."""
BLURRED = frozenset({"lie_detector_v1", "caa", "bbq_age", "bbq_disability_status", "bbq_nationality"})
"""Sources whose labels turn on facts or on being asked, which no feature of a statement can carry."""
RESTRICTED = frozenset({"refusal_direction_train"})
"""Sources whose negatives may be measured with and not learnt from."""


def extra_rows(folder: Path, category: str) -> LabelledTexts:
    """Rows of the training half for a category; empty where the folder has no such category."""
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; give the folder that holds CATEGORY/SOURCE.jsonl")
    rows: list[tuple[str, bool, str]] = []
    paths = [path for path in sorted((folder / category).glob("*.jsonl")) if path.stem not in BLURRED]
    for path in paths:
        rows.extend(_source(path, ROWS // len(paths)))
    return LabelledTexts([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows])


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
