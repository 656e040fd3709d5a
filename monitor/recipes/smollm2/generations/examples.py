"""Examples of policies out of what the model said and was asked: the kept answers, each behind its plain question.

They stand behind a policy's other examples, in groups of their own by which they are known and made anew.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monitor.policy.files.examples import Example, Label
from monitor.policy.files.occurrences import Kind
from monitor.recipes.smollm2.generations.contrast import MOST
from monitor.recipes.smollm2.generations.speech import GENERATIONS, REQUESTS

SAID = "smollm2 "
"""How the groups of such examples begin; the number of the question follows, so that no fold splits a question."""
REQUESTS_ONLY = frozenset({"dangerous-requests"})
"""Policies whose rules read prompts alone: the answers would teach what is never read."""
ENDING = ".examples.jsonl"

Row = dict[str, Any]


def example_rows(policy: str, folder: Path, most: int = MOST) -> list[Row]:
    """Rows of a policy's examples file, out of the folder that `generations` wrote; none where it holds none.

    Of each question at most so many answers of each side are taken, the first.
    """
    name = REQUESTS if policy in REQUESTS_ONLY else GENERATIONS
    path = folder / policy / name
    rows = list(_rows(path, harmless=name == REQUESTS)) if path.exists() else []
    seen: Counter[tuple[str, str]] = Counter()
    taken = []
    for row in rows:
        side = row["group"], row["label"]
        seen[side] += 1
        taken += [row] if seen[side] <= most else []
    return taken


def _rows(path: Path, *, harmless: bool) -> Iterator[Row]:
    """`harmless`: rows with the label 0 are look-alikes and not counterparts."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        other = Label.HARD_NEGATIVE if harmless else Label.NEGATIVE
        yield {
            "text": row["text"],
            "label": str(Label.POSITIVE if row["label"] else other),
            "group": SAID + row["group"].removeprefix("question "),
        }


def extend(policies: Path, folder: Path, policy: str, most: int = MOST) -> int:
    """Put such examples behind the others in a policy's file, in place of those of before; returns their number."""
    path = policies / f"{policy}{ENDING}"
    rows = example_rows(policy, folder, most)
    written = [line for line in path.read_text("utf-8").splitlines() if not _made(json.loads(line)["group"])]
    written += [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(written) + "\n", "utf-8")
    return len(rows)


def as_examples(rows: Sequence[Row], kind: Kind) -> list[Example]:
    """The same rows as a policy reads them; those that say nothing of it are of the `kind` given."""
    return [Example(row["text"], Label(row["label"]), row["group"], kind) for row in rows]


def by_hand(examples: Sequence[Example]) -> list[Example]:
    """The examples that people wrote."""
    return [one for one in examples if not _made(one.group)]


def _made(group: str) -> bool:
    return group.startswith(SAID)
