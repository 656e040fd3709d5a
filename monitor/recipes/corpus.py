"""The training text: a data folder's corpora, the text of its labelled rows, and Python's standard library.

The folder holds `corpus/*.jsonl.xz` and `labelled/CONCEPT/SOURCE.jsonl`; part of the documents are held out.
"""

import hashlib
import json
import lzma
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from monitor.lab.splits import Side, normalised, split_of
from monitor.lab.texts import LabelledText, read_labelled

YARDSTICK = "wikitext2_heldout"
"""The corpus that is only measured on: every document of it is held out."""

_HELD_OUT_PERCENT = 2
_SOURCE_LIMIT = 200_000
_SKIPPED_PARTS = frozenset(
    {"site-packages", "test", "tests", "idle_test", "__pycache__", "encodings", "pydoc_data"}
)
_NOT_FOR_TRAINING = frozenset({"benign"})
"""Concepts whose licence forbids commercial use; their rows are for measuring only."""


@dataclass(frozen=True, slots=True)
class CorpusText:
    """One text with the split to which it belongs."""

    text: str
    split: Side


def corpora(data: Path, standard_library: Path | None = None) -> dict[str, list[CorpusText]]:
    """All documents by corpus name, in a fixed order.

    Args:
        data: The folder that holds `corpus/` and `labelled/`.
        standard_library: Where Python files are read from; the running interpreter's library when omitted.

    Raises:
        FileNotFoundError: The folder holds no corpus at all.
    """
    files = sorted((data / "corpus").glob("*.jsonl.xz"))
    if not files:
        raise FileNotFoundError(f"no corpus/*.jsonl.xz under {data}: point --data at a folder that has them")
    found = {path.name.removesuffix(".jsonl.xz"): list(_texts(path)) for path in files}
    found["python"] = list(_python_files(standard_library or Path(sysconfig.get_paths()["stdlib"])))
    return {**found, **_labelled(data)}


def _texts(path: Path) -> Iterator[CorpusText]:
    yardstick = path.name.startswith(YARDSTICK)
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            yield CorpusText(text, "heldout" if yardstick else _fate(_opening(text)))


def _opening(text: str) -> str:
    """What ties documents together: dialogues with the same first request are held out together."""
    return text.split("\n\nAssistant:", 1)[0][:2000]


def _fate(key: str) -> Side:
    digest = hashlib.sha256(key.encode()).digest()
    return "heldout" if int.from_bytes(digest[:4]) % 100 < _HELD_OUT_PERCENT else "train"


def _python_files(root: Path) -> Iterator[CorpusText]:
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root)
        if _SKIPPED_PARTS.isdisjoint(inner.parts) and path.stat().st_size <= _SOURCE_LIMIT:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            if text:
                yield CorpusText(text, _fate(inner.as_posix()))


def _labelled(data: Path) -> dict[str, list[CorpusText]]:
    by_corpus: dict[str, list[CorpusText]] = {}
    rows = [
        (path, row, split_of(path.stem, row.group, row.text))
        for path in sorted((data / "labelled").glob("*/*.jsonl"))
        if path.parent.name not in _NOT_FOR_TRAINING
        for row in read_labelled(path)
    ]
    unseen = {normalised(row.text) for _, row, split in rows if split == "heldout"}
    for path, row, split in rows:
        if _restricted(path, row) or (split == "train" and normalised(row.text) in unseen):
            continue
        by_corpus.setdefault(_corpus_of(path, row), []).append(CorpusText(_as_document(row), split))
    return by_corpus


def _restricted(path: Path, row: LabelledText) -> bool:
    """The benign half of this source is Alpaca's, which forbids commercial use."""
    return path.stem == "refusal_direction_train" and not row.label


def _corpus_of(path: Path, row: LabelledText) -> str:
    first_person = row.kind == "statement" and path.stem.startswith("persona_")
    return "labelled/statements" if first_person else f"labelled/{path.parent.name}"


def _as_document(row: LabelledText) -> str:
    """Every second request is met as the opening of a dialogue, the way a served model will read it."""
    asked = row.kind == "prompt" and hashlib.sha256(row.text.encode()).digest()[1] % 2 == 0
    return f"Human: {row.text}" if asked else row.text
