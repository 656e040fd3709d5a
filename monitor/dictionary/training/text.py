"""Training text: `.jsonl`, `.jsonl.xz` and `.txt` files, cut into pieces and mixed in given shares.

A line of JSON holds a `text`, or the `messages` of a conversation, which goes through the model's chat template whole.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from monitor.dictionary.packed_text import Document, characters_of, document_of
from monitor.errors import ConfigurationError

ENDINGS = (".jsonl", ".jsonl.xz", ".txt")
PIECE = 4000
"""Largest length of a piece in characters. Longer documents are cut, so that one book does not fill the buffer."""
HELD_OUT = 50
"""One in this many pieces is held out for measuring."""
_XZ = 4
"""Approximate size of a text relative to its compressed file."""


@dataclass(frozen=True)
class TextSource:
    """A file or a folder of text, and its share of the training text."""

    path: Path
    share: float = 1.0
    """The share relative to that of other sources."""

    @classmethod
    def parse(cls, text: str) -> TextSource:
        """Parse `PATH` or `PATH=SHARE`. Raises ConfigurationError where there is no readable text at that path."""
        path, equals, share = text.rpartition("=")
        try:
            source = cls(Path(path), float(share)) if equals and not Path(text).exists() else cls(Path(text))
        except ValueError:
            source = cls(Path(text))
        if not source.share > 0:
            raise ConfigurationError(f"--data {text}: the share must be above 0")
        source.files()
        return source

    def files(self) -> list[Path]:
        """The files of text, in order. Raises ConfigurationError where there are none."""
        if self.path.is_file():
            found = [self.path]
        else:
            found = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name.endswith(ENDINGS))
        if not found or not all(p.name.endswith(ENDINGS) for p in found):
            raise ConfigurationError(
                f"--data {self.path}: expected a file or a folder of {', '.join(ENDINGS)} "
                '(JSON lines with "text" or "messages")'
            )
        return found


def documents(path: Path) -> Iterator[Document]:
    """The documents of a file, in order. A `.txt` file is one text.

    Raises ConfigurationError for a line without a text, and for a file that is cut short or not UTF-8.
    """
    with _open(path) as file:
        try:
            if path.name.endswith(".txt"):
                yield file.read()
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parsed(path, number, line)
        except (UnicodeDecodeError, lzma.LZMAError, EOFError) as error:
            raise ConfigurationError(f"{path} cannot be read: {error}") from error


def pieces(path: Path, *, held_out: bool) -> Iterator[Document]:
    """The documents of a file: conversations whole, texts cut into pieces of at most `PIECE` characters.

    With `held_out`, these are every `HELD_OUT`-th piece; else all others.
    """
    number = 0
    for document in documents(path):
        for piece in _cut(document):
            number += 1
            blank = isinstance(piece, str) and not piece.strip()
            if (number % HELD_OUT == 0) is held_out and not blank:
                yield piece


def _cut(document: Document) -> Iterator[Document]:
    if not isinstance(document, str):
        yield document
        return
    for start in range(0, len(document), PIECE):
        yield document[start : start + PIECE]


def mixed(sources: Sequence[TextSource], *, held_out: bool = False) -> Iterator[Document]:
    """An endless mixture of pieces from all sources in their shares. A file that has ended is read again.

    The files of a folder have shares by their sizes. The order is the same every time: the next piece is from the file
    that is furthest behind its share.
    """
    shares = [(file, share) for source in sources for file, share in _by_size(source)]
    streams = [_endless(file, held_out) for file, _ in shares]
    given = [0.0] * len(shares)
    while True:
        following = min(range(len(shares)), key=given.__getitem__)
        text = next(streams[following])
        given[following] += characters_of(text) / shares[following][1]
        yield text


def _by_size(source: TextSource) -> list[tuple[Path, float]]:
    files = source.files()
    sizes = [path.stat().st_size * (_XZ if path.name.endswith(".xz") else 1) + 1 for path in files]
    return [(path, source.share * size / sum(sizes)) for path, size in zip(files, sizes, strict=True)]


def _endless(path: Path, held_out: bool) -> Iterator[Document]:
    while True:
        text = None
        for text in pieces(path, held_out=held_out):
            yield text
        if text is None and held_out:
            for text in pieces(path, held_out=False):
                yield text
        if text is None:
            raise ConfigurationError(f"{path} holds no text to train on; leave it out")


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _parsed(path: Path, number: int, line: str) -> Document:
    try:
        return document_of(json.loads(line))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(
            f'{path}:{number}: each line must be a JSON object with "text" or "messages" ({error})'
        ) from error
