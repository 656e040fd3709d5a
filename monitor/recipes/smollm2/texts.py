"""Texts: what the dictionary learns from, as JSON lines in the form in which the model meets it.

Dialogues become conversations in the model's own chat template. The text of the labelled sets is met as it is, as the
user's turn and as the assistant's, because policies read it in all three places.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monitor.lab.splits import Side
from monitor.recipes.corpus import CorpusText
from monitor.recipes.smollm2.conversations import Turn, assistant, turns_of, user
from monitor.recipes.smollm2.plan import ANSWERS, SHARES
from monitor.recipes.smollm2.questions import Question

_BEFORE_A_STATEMENT = (
    "What do you think?",
    "Tell me something about yourself.",
    "What would you say?",
    "Go on.",
    "Write something.",
)
"""What the user says before a statement that stands as the assistant's turn, in turn."""
_BEFORE_CODE = ("Show me the function.", "Write the code.", "What does the source look like?")

Record = dict[str, Any]
"""A line of a text file: `{"text": …}` or `{"messages": […]}`."""


def write_texts(
    corpora: Mapping[str, Sequence[CorpusText]],
    answers: Sequence[Record],
    questions: Sequence[Question],
    folder: Path,
) -> list[str]:
    """Write the training halves of all corpora and the model's answers; returns `PATH=SHARE` of each.

    Raises ValueError where an answer belongs to a question that is not asked here, which is so with other data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = {name: records_of(name, corpora.get(name, ())) for name in SHARES if name != ANSWERS}
    found[ANSWERS] = _of_answers(answers, questions)
    return [
        f"{path}={share}"
        for name, share in SHARES.items()
        if _written(path := folder / f"{name.replace('/', '_')}.jsonl", found[name])
    ]


def _written(path: Path, records: Iterator[Record]) -> bool:
    lines = 0
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            lines += 1
    return lines > 0


def records_of(name: str, documents: Sequence[CorpusText], half: Side = "train") -> Iterator[Record]:
    """The documents of one half of a corpus in the forms in which the model meets them."""
    for number, document in enumerate(documents):
        if document.split != half:
            continue
        text = document.text
        turns = turns_of(text)
        if turns:
            yield {"messages": list(turns)}
        elif name.startswith("labelled/"):
            yield from _in_all_places(name, text, number)
        else:
            yield {"text": text}


def _in_all_places(name: str, text: str, number: int) -> Iterator[Record]:
    """A labelled text as it is, as the user's turn, and as the assistant's."""
    code = name == "labelled/unsafe_code"
    before = _BEFORE_CODE if code else _BEFORE_A_STATEMENT
    yield {"text": text}
    yield {"messages": [user(text)]}
    if name not in ("labelled/dangerous_request", "labelled/scam"):
        yield {"messages": [user(before[number % len(before)]), assistant(text)]}


def _of_answers(answers: Sequence[Record], questions: Sequence[Question]) -> Iterator[Record]:
    asked = {question.digest: question for question in questions}
    for row in answers:
        if row["asked"] not in asked:
            raise ValueError(
                f"question {row['source']} {row['number']} is not in this data; make the answers anew"
            )
        turns: list[Turn] = [*asked[row["asked"]].turns]
        if row["text"]:
            yield {"messages": [*turns, assistant(row["text"])]}
