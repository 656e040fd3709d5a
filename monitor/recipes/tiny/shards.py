"""Rows of token ids on disk, all of one length, in one memory-mapped file per corpus and split."""

import bisect
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from monitor.lab.splits import Side
from monitor.recipes.corpus import CorpusText
from monitor.recipes.tiny.tokenizer import encode_documents

Rows = NDArray[np.uint16]
Tell = Callable[[str], None]
"""Is told one line of progress in words."""
_WINDOW = 4096
_INDEX = "index.json"


def pack(documents: Iterable[list[int]], length: int) -> Rows:
    """Lays documents (each from begin to end token) into rows `[n, length]` that all start with a begin token.

    Long documents are cut into pieces of a row, each begun anew. Pieces are placed best-fit within a window; what is
    left of a row when nothing fits is filled with the opening of a document that also appears whole elsewhere.
    """
    pending: list[tuple[int, list[int]]] = []
    rows: list[list[int]] = []
    for piece in _pieces(documents, length):
        bisect.insort(pending, (len(piece), piece))
        if len(pending) >= _WINDOW:
            rows.append(_fill_row(pending, length))
    while sum(size for size, _ in pending) >= length:
        rows.append(_fill_row(pending, length))
    return np.array(rows, dtype=np.uint16).reshape(-1, length)


def _pieces(documents: Iterable[list[int]], length: int) -> Iterator[list[int]]:
    for ids in documents:
        yield ids[:length]
        for start in range(length, len(ids), length - 1):
            rest = ids[start : start + length - 1]
            if len(rest) >= length // 8:
                yield [ids[0], *rest]


def _fill_row(pending: list[tuple[int, list[int]]], length: int) -> list[int]:
    row: list[int] = []
    while len(row) < length and pending:
        place = bisect.bisect_right(pending, length - len(row), key=lambda entry: entry[0])
        if place == 0:
            row += pending[0][1][: length - len(row)]
        else:
            row += pending.pop(place - 1)[1]
    return row


def build_shards(
    cache: Path,
    corpora: dict[str, list[CorpusText]],
    tokenizer: PreTrainedTokenizerFast,
    length: int,
    seed: int,
    report: Tell,
) -> None:
    """Writes the packed rows of every corpus and split into `cache`, the index last."""
    cache.mkdir(parents=True, exist_ok=True)
    counts: dict[str, dict[str, int]] = {}
    for number, (name, documents) in enumerate(corpora.items()):
        order = np.random.default_rng([seed, number]).permutation(len(documents))
        counts[name] = {}
        for split in ("train", "heldout"):
            texts = [documents[i].text for i in order if documents[i].split == split]
            rows = pack(encode_documents(tokenizer, texts), length)
            np.save(_file(cache, name, split), rows)
            counts[name][split] = len(rows)
        report(
            f"{name}: {counts[name]['train'] * length:,} training tokens, {counts[name]['heldout']} rows held out"
        )
    (cache / _INDEX).write_text(json.dumps(counts, indent=1), encoding="utf-8")


def have_shards(cache: Path) -> bool:
    """Whether the cache was written to its end."""
    return (cache / _INDEX).is_file()


def open_shards(cache: Path, split: Side) -> dict[str, Rows]:
    """The rows of every corpus that has any in this split, memory-mapped and read-only."""
    counts = json.loads((cache / _INDEX).read_text(encoding="utf-8"))
    return {
        name: np.load(_file(cache, name, split), mmap_mode="r")
        for name, sizes in counts.items()
        if sizes[split] > 0
    }


def _file(cache: Path, name: str, split: Side | str) -> Path:
    return cache / f"{name.replace('/', '-')}.{split}.npy"
