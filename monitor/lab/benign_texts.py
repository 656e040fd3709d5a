"""Benign texts for fitting and for measuring: excerpts of documents, of lengths that a server meets."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.dictionary.packed_text import plain
from monitor.errors import InputError
from monitor.lab.splits import Side, Split
from monitor.lab.texts import corpus_files, in_equal_shares
from monitor.policy.files.examples import BENIGN_FILE, read_benign

LEAST_BENIGN = 100
LEARNT = 600
"""Most excerpts that teach, beside the folder's own benign texts."""
ASIDE = 1200
"""Most excerpts that set thresholds and teach nothing."""
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


def benign_texts(folder: Path, files: Sequence[Path], split: Split = HALVES) -> BenignTexts:
    """The benign texts of a policy folder and excerpts of further files, of which the training side is read.

    InputError where there are too few to set a threshold.
    """
    path = folder / BENIGN_FILE
    own = list(read_benign(path)) if path.exists() else []
    further = documents(files, "train", split) if files else iter(())
    learnt = _once([*own, *(excerpt(text, *TEACHING) for text in itertools.islice(further, LEARNT))])
    if len(learnt) < LEAST_BENIGN:
        raise InputError(
            f"{len(learnt)} benign texts cannot set a threshold; put at least {LEAST_BENIGN} into {path}, "
            "or name files with --benign"
        )
    known = set(learnt)
    aside = _once([excerpt(text, *SPREAD) for text in itertools.islice(further, ASIDE)])
    return BenignTexts(learnt, [text for text in aside if text not in known])


def documents(files: Sequence[Path], side: Side, split: Split = HALVES) -> Iterator[str]:
    """Documents of files in turn, of one side of a split.

    The side follows from what a document opens with, so a dialogue and its repetition fall together. A long document
    gives several pieces from all over it.
    """
    readers = [_on_side(path, side, split) for path in corpus_files(files)]
    while readers:
        for reader in list(readers):
            text = next(reader, None)
            if text is None:
                readers.remove(reader)
            else:
                yield text


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
