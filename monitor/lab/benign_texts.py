"""Benign texts for fitting and for measuring: excerpts of documents, of lengths that a server meets."""

from __future__ import annotations

import hashlib
import itertools
import re
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from monitor.dictionary.packed_text import plain
from monitor.errors import InputError
from monitor.lab.splits import Side, Split
from monitor.lab.texts import corpus_files, documents_with_rows, in_equal_shares, kind_of
from monitor.policy.files.benign import CODE, DIALOGUE, KIND, PROSE, BenignText, Turn, folder_benign_texts
from monitor.policy.files.examples import BENIGN_FILE

LEAST_BENIGN = 100
LEARNT = 600
"""Most texts that teach."""
ASIDE = 1200
"""Most excerpts that set thresholds of single rules and teach nothing."""
MOST_FURTHER = 8000
"""Most texts that are taken from files beside those of the policies' folder."""
STANDARD_LIBRARY = Path("stdlib")
"""Stands for the standard library of this Python, unless there is such a file or folder."""
_SKIPPED = frozenset(
    {"test", "tests", "site-packages", "idlelib", "lib2to3", "pydoc_data", "__pycache__", "encodings"}
)
"""Folders of the standard library that are left out: tests, tables, and what was installed."""
WRITTEN_ROLES = {"Human": "user", "Assistant": "assistant"}
"""How written dialogues name who speaks."""
Item = TypeVar("Item")
ASKED, ANSWERED = "Human: ", "\n\nAssistant:"
HALVES = Split()
"""What a fit and an evaluation read of a corpus where nobody says how it is shared out: one half each."""
TEACHING = (40, 640)
"""Characters of an excerpt that teaches, at least and at most."""
SPREAD = (40, 2000)
"""Characters of an excerpt that sets thresholds, or measures them: every length bucket gets its share."""
WHOLE = 2_000_000
"""Characters of a document that are looked at."""
PIECES = 8
"""Pieces of a long document, at most."""


@dataclass(frozen=True)
class BenignTexts:
    """The benign texts of one fit."""

    learnt: Sequence[str]
    """Texts that detectors learn from and that set thresholds."""
    aside: Sequence[str]
    """Texts that only set thresholds."""
    calibrating: Sequence[BenignText] = ()
    """All texts that no detector learns from, whole, with their kinds and groups: those of `aside` among them."""


def benign_texts(folder: Path, files: Sequence[Path], split: Split = HALVES) -> BenignTexts:
    """The benign texts of a policy folder and excerpts of further files, of which the training side is read.

    Half of the texts teach, at least `LEAST_BENIGN` and at most `LEARNT`, no group in part; the others set thresholds.
    InputError where there are too few.
    """
    rows = [*folder_benign_texts(folder), *itertools.islice(further_texts(files, split), MOST_FURTHER)]
    teaching, calibrating = _parted(list({row.plain: row for row in rows}.values()))
    learnt = _once([_taught(row) for row in teaching])
    if len(learnt) < LEAST_BENIGN:
        raise InputError(
            f"{len(learnt)} benign texts cannot set a threshold; put at least {LEAST_BENIGN} into "
            f"{folder / BENIGN_FILE}, or name files with --benign"
        )
    known = set(learnt)
    aside = _once([excerpt(_written(row), *SPREAD) for row in calibrating[:ASIDE]])
    return BenignTexts(learnt, [text for text in aside if text not in known], calibrating)


def further_texts(files: Sequence[Path], split: Split = HALVES) -> Iterator[BenignText]:
    """The texts of further files, of the training side of a split, from all of them in turn.

    The path `stdlib` stands for the standard library of this Python: its modules as code, its manual as prose.
    """
    library = [path for path in files if path == STANDARD_LIBRARY and not path.exists()]
    named = [path for path in files if path not in library]
    sources = [_of_file(path, split) for path in corpus_files(named)] if named else []
    sources += [standard_library(split) for _ in library[:1]]
    return _in_turn(sources)


def standard_library(split: Split = HALVES) -> Iterator[BenignText]:
    """Modules of this Python's standard library as code, and the topics of its manual as prose."""
    folder = Path(sysconfig.get_path("stdlib"))
    modules = sorted(
        path for path in folder.rglob("*.py") if not _SKIPPED & set(path.relative_to(folder).parts)
    )
    code = ((str(path.relative_to(folder)), path) for path in modules)
    read = ((name, path.read_text(encoding="utf-8", errors="replace")) for name, path in code)
    both = [((CODE, *one) for one in read), ((PROSE, f"topic {name}", text) for name, text in _topics())]
    for kind, name, text in _in_turn(both):
        if text.strip() and split.document_side(name) == "train":
            yield BenignText(kind, text[:WHOLE], group=name)


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    return iter(topics.items())


def _of_file(path: Path, split: Split) -> Iterator[BenignText]:
    """The texts of one file. A row of a .jsonl file may name its kind and group; other files hold code or prose."""
    if kind_of(path) == ".jsonl":
        found = documents_with_rows(path)
    else:
        found = ((document, {}) for document in in_equal_shares([path], WHOLE))
    for document, row in found:
        opening = plain(document).split(ANSWERED, 1)[0][:400]
        group = str(row.get("group") or hashlib.sha256(opening.encode()).hexdigest()[:16])
        if split.document_side(str(row.get("group") or opening)) != "train":
            continue
        turns = dialogue_turns(document) if isinstance(document, str) else tuple(document)
        kind = DIALOGUE if turns else CODE if kind_of(path) == ".py" else PROSE
        if isinstance(named := row.get("kind"), str) and re.fullmatch(KIND, named):
            kind = named
        if turns or isinstance(document, tuple):
            yield BenignText(kind, messages=turns, group=group)
        else:
            yield from (BenignText(kind, piece, group=group) for piece in _pieces(document))


def _parted(rows: Sequence[BenignText]) -> tuple[list[BenignText], list[BenignText]]:
    """Texts that teach, and all others, in an order that follows from their groups alone."""
    groups: dict[str, list[BenignText]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    ordered = [
        groups[name] for name in sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    ]
    wanted = min(max(LEAST_BENIGN, len(rows) // 2), LEARNT)
    teaching: list[BenignText] = []
    while ordered and len(teaching) < wanted:
        teaching += ordered.pop()
    return teaching, [row for group in ordered for row in group]


def dialogue_turns(text: str) -> tuple[Turn, ...]:
    """The turns of a dialogue that is written as `Human: …`, blank line, `Assistant: …`; none of another text."""
    if not text.startswith(ASKED):
        return ()
    parts = re.split(r"\n\n(Human|Assistant):", "\n\n" + text)[1:]
    said = [(WRITTEN_ROLES[name], one.strip()) for name, one in zip(parts[::2], parts[1::2], strict=True)]
    return tuple({"role": role, "content": content} for role, content in said if content)


def _written(row: BenignText) -> str:
    """A text, or a conversation as a written dialogue."""
    names = {role: f"{name}: " for name, role in WRITTEN_ROLES.items()}
    return row.text or "\n\n".join(names.get(turn["role"], "") + turn["content"] for turn in row.messages)


def _taught(row: BenignText) -> str:
    """A text as it teaches, a short one whole."""
    written = _written(row)
    return written if len(written) <= TEACHING[1] and not row.messages else excerpt(written, *TEACHING)


def _in_turn(sources: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """One of each source, then the next of each, until all are at their ends."""
    left = list(sources)
    while left:
        for source in list(left):
            try:
                yield next(source)
            except StopIteration:
                left.remove(source)


def documents(files: Sequence[Path], side: Side, split: Split = HALVES) -> Iterator[str]:
    """Documents of files in turn, of one side of a split.

    The side follows from what a document opens with, so a dialogue and its repetition fall together. A long document
    gives several pieces from all over it.
    """
    return _in_turn([_on_side(path, side, split) for path in corpus_files(files)])


def _on_side(path: Path, side: Side, split: Split) -> Iterator[str]:
    for text in map(plain, in_equal_shares([path], WHOLE)):
        if split.document_side(text.split(ANSWERED, 1)[0][:400]) == side:
            yield from _pieces(text)


def _pieces(text: str) -> Iterator[str]:
    """A text as it is, or pieces of a long one that begin where a line or a word begins."""
    if len(text) <= 4 * SPREAD[1]:
        yield text
        return
    for start in range(0, len(text) - SPREAD[1], max(len(text) // PIECES, 2 * SPREAD[1])):
        piece = text[start : start + 2 * SPREAD[1]]
        yield (piece if not start else piece.partition("\n" if "\n" in piece[:400] else " ")[2]).strip()


def excerpt(text: str, shortest: int, longest: int) -> str:
    """The beginning of a text, of a length that differs from text to text; of half the dialogues the bare request.

    Prompts reach a server without `Human:` before them as well, and thresholds must hold for those too.
    """
    spread = hashlib.sha256(text.encode()).digest()
    if spread[1] % 2 and text.startswith(ASKED):
        text = text.removeprefix(ASKED).split(ANSWERED, 1)[0]
    return text[: int(shortest * (longest / shortest) ** (spread[0] / 255))]


def _once(texts: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(text for text in texts if text.strip()))
