"""Benign texts for `policies/benign/`: what the model says to questions about everyday things, which were written here.

A third of the answers become single exchanges, a third texts by themselves (prose and code), and a third conversations
of several exchanges, because thresholds must hold for long requests too. Questions about the model itself are left out:
some of its answers are what the policy model-identity looks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from monitor.policy.files.benign import CODE, DIALOGUE, PROSE
from monitor.recipes.smollm2.conversations import assistant
from monitor.recipes.smollm2.questions import WRITTEN_HERE, Question, written_here

EXCHANGES = (2, 3, 4, 6, 8, 12)
"""Lengths of the conversations, in turn."""
NOT_BENIGN = frozenset({555})
"""Numbers of questions whose answer a reader would not call benign."""

Row = dict[str, Any]
Answered = tuple[Question, str]


def benign_rows(answers: Sequence[Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Rows by kind, as files of benign texts hold them, from all answers of the recipe."""
    found: dict[str, list[Row]] = {DIALOGUE: [], PROSE: [], CODE: []}
    told = sorted(_answered(answers), key=lambda one: one[0].number)
    for question, text in told[0::3]:
        found[DIALOGUE].append(_row(f"answer {question.number}", [(question, text)]))
    for question, text in told[1::3]:
        kind = CODE if question.kind == CODE else PROSE
        found[kind].append({"text": text, "group": f"answer {question.number}"})
    for number, part in enumerate(_conversations(told[2::3])):
        found[DIALOGUE].append(_row(f"conversation {number}", part))
    return found


def write_benign(answers: Sequence[Mapping[str, Any]], folder: Path) -> dict[str, int]:
    """Write `KIND.jsonl` for each kind into a folder; returns the number of rows of each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = benign_rows(answers)
    for kind, found in rows.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in found)
        (folder / f"{kind}.jsonl").write_text("".join(lines), "utf-8")
    return {kind: len(found) for kind, found in rows.items()}


def _answered(answers: Sequence[Mapping[str, Any]]) -> Iterator[Answered]:
    asked = {question.digest: question for question in written_here()}
    for row in answers:
        question = asked.get(row["asked"]) if row["source"] == WRITTEN_HERE else None
        if (
            question is not None
            and question.kind != DIALOGUE
            and question.number not in NOT_BENIGN
            and row["text"]
        ):
            yield question, row["text"]


def _conversations(told: Sequence[Answered]) -> Iterator[Sequence[Answered]]:
    """Parts of as many exchanges as `EXCHANGES` says; neighbours are about other things, so topics change."""
    spread = [one for start in range(12) for one in told[start::12]]
    at = 0
    for size in cycle(EXCHANGES):
        if at + size > len(spread):
            return
        yield spread[at : at + size]
        at += size


def _row(group: str, part: Sequence[Answered]) -> Row:
    turns = [turn for question, text in part for turn in (*question.turns, assistant(text))]
    return {"messages": turns, "group": group}
