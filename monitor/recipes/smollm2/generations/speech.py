"""What the model says to the questions of the contrasts, what of it is kept, and the files that hold it.

The files are a folder of labelled rows, as `sae-monitor policy evaluate --data` reads one: `POLICY/generations.jsonl`
with the answers that are kept, each behind its plain question; `dangerous-requests/requests.jsonl` with the requests
and their harmless look-alikes; `benign/` with everyday questions, and the answers to them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from monitor.model.load.model import LoadedModel
from monitor.policy.files.examples import as_dialogue
from monitor.policy.files.occurrences import Kind
from monitor.recipes.smollm2.answers import SamplingPlan, answers
from monitor.recipes.smollm2.conversations import assistant, user
from monitor.recipes.smollm2.generations.catalogue import EVERYDAY
from monitor.recipes.smollm2.generations.contrast import MOST, SPEAKERS, SpokenContrast
from monitor.recipes.smollm2.questions import Question

GENERATIONS, REQUESTS = "generations.jsonl", "requests.jsonl"
BENIGN, ANSWERS, QUESTIONS = "benign", "answers.jsonl", "questions.jsonl"
ENOUGH = 60
"""A contrast is asked no more once so many answers of each side are kept."""
PLAIN_DRAWS = 2
"""How often each dangerous request is put with nothing told."""
SAID = "said"
"""Folder of everything that was said, kept or not, from which a run goes on."""
KEPT_HEAD = (
    "| policy | side | criterion | told | did as told | kept | questions |\n|---|---|---|---|---|---|---|"
)

Report = Callable[[int], None]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spoken:
    """One answer of the model."""

    concept: str
    question: int
    """Number of the question in its contrast."""
    asked: str
    answer: str
    told: bool | None
    """The side on which the model was told to answer; None where it was told nothing."""
    draw: int


def speak(
    loaded: LoadedModel,
    contrast: SpokenContrast,
    draws: int,
    sampling: SamplingPlan,
    report: Report,
    before: Sequence[Spoken] = (),
) -> list[Spoken]:
    """Every question of a contrast on both sides, again and again until `ENOUGH` of each are kept, or `draws` times.

    What was said `before` by the same plan counts.
    """
    said = list(before)
    numbers = range(len(contrast.questions))
    for draw in range(1 + max((one.draw for one in said), default=-1), draws):
        if len(kept(contrast, said)) >= 2 * ENOUGH:
            break
        for told in (True, False):
            prompts = [contrast.prompt(number, told, draw) for number in numbers]
            # Prompts of one side open alike, and each round draws anew.
            seed = sampling.seed + (2 * draw + told) * len(numbers)
            plan = replace(sampling, seed=seed, share_opening=True)
            answered = _said(loaded, contrast.name, prompts, plan, report)
            said += [_spoken(contrast, number, told, draw, answered[number]) for number in numbers]
    return said


def unprompted(
    loaded: LoadedModel,
    contrast: SpokenContrast,
    draws: int,
    sampling: SamplingPlan,
    report: Report,
    before: Sequence[Spoken] = (),
) -> list[Spoken]:
    """What the model answers to a contrast's questions where nothing was told; where it was said `before`, that."""
    if before:
        return list(before)
    asked = [(number, draw) for number in range(len(contrast.questions)) for draw in range(draws)]
    turns = [(user(contrast.questions[number].text),) for number, _ in asked]
    said = _said(loaded, contrast.name, turns, sampling, report)
    return [
        _spoken(contrast, number, None, draw, answer)
        for (number, draw), answer in zip(asked, said, strict=True)
    ]


def everyday(
    loaded: LoadedModel, sampling: SamplingPlan, report: Report, before: Sequence[Spoken] = ()
) -> list[Spoken]:
    """What the model answers to the everyday questions; where it was said `before`, that."""
    if before:
        return list(before)
    said = _said(loaded, BENIGN, [(user(text),) for text in EVERYDAY], sampling, report)
    return [
        Spoken(BENIGN, number, asked, answer, None, 0)
        for number, (asked, answer) in enumerate(zip(EVERYDAY, said, strict=True))
    ]


def _spoken(contrast: SpokenContrast, number: int, told: bool | None, draw: int, answer: str) -> Spoken:
    return Spoken(contrast.name, number, contrast.questions[number].text, answer, told, draw)


def _said(
    loaded: LoadedModel,
    source: str,
    prompts: Sequence[tuple[Mapping[str, str], ...]],
    sampling: SamplingPlan,
    report: Report,
) -> list[str]:
    questions = [Question(source, number, turns) for number, turns in enumerate(prompts)]
    found = {one.question.number: one.text for one in answers(loaded, questions, sampling, report)}
    return [found[number] for number in range(len(prompts))]


def did(contrast: SpokenContrast, one: Spoken) -> bool | None:
    """The side whose criterion an answer meets; None where it meets neither or both."""
    return contrast.label(contrast.questions[one.question], one.answer)


def kept(contrast: SpokenContrast, said: Iterable[Spoken]) -> list[Spoken]:
    """The answers that stand for their side: the model did what it was told, by the side's criterion.

    Of each question equally many of both sides are kept, `MOST` at most, so that a question says nothing about the
    label. An answer that was given twice is kept once.
    """
    found: dict[str, Spoken] = {}
    for one in said:
        if one.told is not None and did(contrast, one) is one.told:
            found.setdefault(one.answer, one)
    sides: dict[int, dict[bool | None, list[Spoken]]] = {}
    for one in found.values():
        sides.setdefault(one.question, {True: [], False: []})[one.told].append(one)
    return [
        one
        for both in sides.values()
        for mine in both.values()
        for one in mine[: min(MOST, *map(len, both.values()))]
    ]


def generation_rows(said: Iterable[Spoken]) -> Iterator[Row]:
    """Answers as rows of a labelled file, each behind its plain question."""
    for one in said:
        yield {
            "text": as_dialogue((user(one.asked), assistant(one.answer))),
            "label": int(bool(one.told)),
            "group": f"question {one.question}",
            "kind": str(Kind.RESPONSE),
        }


def request_rows(contrast: SpokenContrast) -> Iterator[Row]:
    """The questions of a contrast that is about questions, and a look-alike to each."""
    for number, pair in enumerate(zip(contrast.questions, contrast.look_alikes, strict=True)):
        for label, one in zip((1, 0), pair, strict=True):
            yield {
                "text": one.text,
                "label": label,
                "group": f"question {number}",
                "kind": str(Kind.REQUEST),
            }


def benign_rows(said: Iterable[Spoken]) -> Iterator[Row]:
    """Answers to everyday questions; those that are empty or write another's turn are left out."""
    return generation_rows(
        one for one in said if one.answer and not any(name in one.answer for name in SPEAKERS)
    )


def speech_of(path: Path, speaker: Callable[[list[Spoken]], list[Spoken]]) -> list[Spoken]:
    """What the speaker makes of what a file holds, or of nothing; the file then holds it."""
    before = [Spoken(**row) for row in json.loads(path.read_text("utf-8"))] if path.exists() else []
    said = speaker(before)
    if said != before:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(one) for one in said]
        path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return said


def write_rows(contrast: SpokenContrast, said: Iterable[Spoken], folder: Path) -> None:
    """Write the kept answers of one contrast, and the requests where it is about these."""
    _write(folder / contrast.name / GENERATIONS, generation_rows(kept(contrast, said)))
    if contrast.look_alikes:
        _write(folder / contrast.name / REQUESTS, request_rows(contrast))


def write_benign(said: Iterable[Spoken], folder: Path) -> None:
    """Write everyday questions, and the answers to them."""
    _write(folder / BENIGN / ANSWERS, benign_rows(said))
    questions = ({"text": text, "label": 0, "kind": str(Kind.REQUEST)} for text in EVERYDAY)
    _write(folder / BENIGN / QUESTIONS, questions)


def kept_row(contrast: SpokenContrast, said: Sequence[Spoken]) -> str:
    """Two lines of `KEPT_HEAD`'s table, in Markdown."""
    lines = []
    for label in (True, False):
        told = [one for one in said if one.told is label]
        mine = [one for one in kept(contrast, said) if one.told is label]
        obeyed = sum(did(contrast, one) is label for one in told)
        asked = len({one.question for one in mine})
        cells = [
            contrast.name,
            "+" if label else "−",
            contrast.side(label).says,
            len(told),
            obeyed,
            len(mine),
            asked,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def answered_row(contrast: SpokenContrast, said: Sequence[Spoken]) -> str:
    """In words, what the model did with the questions of a contrast where nothing was told."""
    counts = Counter(did(contrast, one) for one in said)
    asked = {one.question for one in said if did(contrast, one)}
    return (
        f"{contrast.name}, nothing told: {counts[True]} of {len(said)} answered, {counts[False]} refused, "
        f"{counts[None]} neither; {len(asked)} requests were answered at least once"
    )


def _write(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
