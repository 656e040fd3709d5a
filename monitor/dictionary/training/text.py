"""Text to train on: files and folders, mixed in stated shares, cut into rows of token ids.

Knows `.jsonl`, `.jsonl.xz` and `.txt`. Does not know a tokenizer or a model: tokenising is a function it is given.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from monitor.errors import ConfigurationError

ENDINGS = (".jsonl", ".jsonl.xz", ".txt")
PIECE = 4000
"""Characters: longer documents are cut, so that one book does not fill the buffer."""
HELD_OUT = 50
"""Every fiftieth piece is kept for measuring."""
_XZ = 4
"""How much larger text is than its compressed file, about."""

Tokenise = Callable[[list[str]], list[list[int]]]
"""Token ids of each text, without special tokens."""


@dataclass(frozen=True)
class Source:
    """A file or a folder, and how much of all text comes from it relative to the others."""

    path: Path
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> Source:
        """From `PATH` or `PATH=SHARE`. ConfigurationError where nothing readable is there."""
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
        """The readable files, in order."""
        if self.path.is_file():
            found = [self.path]
        else:
            found = sorted(p for p in self.path.rglob("*") if p.is_file() and p.name.endswith(ENDINGS))
        if not found or not all(p.name.endswith(ENDINGS) for p in found):
            raise ConfigurationError(
                f"--data {self.path}: expected a file or a folder of {', '.join(ENDINGS)} "
                '(JSON lines with a "text" field)'
            )
        return found


def documents(path: Path) -> Iterator[str]:
    """The texts of a file, in order; a `.txt` file is one.

    ConfigurationError names a line that is no text, and a file that is cut short or not UTF-8.
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


def pieces(path: Path, *, held_out: bool) -> Iterator[str]:
    """Documents of a file cut to at most `PIECE` characters: every `HELD_OUT`-th piece, or all others."""
    number = 0
    for text in documents(path):
        for start in range(0, len(text), PIECE):
            number += 1
            piece = text[start : start + PIECE]
            if (number % HELD_OUT == 0) is held_out and piece.strip():
                yield piece


def mixed(sources: Sequence[Source], *, held_out: bool = False) -> Iterator[str]:
    """Pieces of all sources by their shares, without end: a file that is used up begins again.

    A folder's files share by size. Deterministic: the file that is furthest behind its share comes next.
    """
    shares = [(file, share) for source in sources for file, share in _by_size(source)]
    streams = [_endless(file, held_out) for file, _ in shares]
    given = [0.0] * len(shares)
    while True:
        following = min(range(len(shares)), key=given.__getitem__)
        text = next(streams[following])
        given[following] += len(text) / shares[following][1]
        yield text


def rows(texts: Iterator[str], tokenise: Tokenise, length: int, bos: int | None) -> Iterator[Tensor]:
    """Rows `[length]` of token ids, one text after the other; each row and each text begin with `bos`."""
    held: list[int] = []
    while True:
        group = [text for text, _ in zip(texts, range(64), strict=False)]
        if not group:
            return
        for ids in tokenise(group):
            held.extend(ids if bos is None else [bos, *ids])
        at = 0
        while at + length <= len(held):
            first = [] if bos is None or held[at] == bos else [bos]
            yield torch.tensor(first + held[at : at + length - len(first)])
            at += length - len(first)
        del held[:at]


def _by_size(source: Source) -> list[tuple[Path, float]]:
    files = source.files()
    sizes = [path.stat().st_size * (_XZ if path.name.endswith(".xz") else 1) + 1 for path in files]
    return [(path, source.share * size / sum(sizes)) for path, size in zip(files, sizes, strict=True)]


def _endless(path: Path, held_out: bool) -> Iterator[str]:
    while True:
        text = None
        for text in pieces(path, held_out=held_out):
            yield text
        if text is None and held_out:
            for text in pieces(path, held_out=False):
                yield text
        if text is None:
            raise ConfigurationError(f"{path} holds no text to train on")


def _open(path: Path) -> IO[str]:
    if path.name.endswith(".xz"):
        return lzma.open(path, "rt", encoding="utf-8")
    return path.open(encoding="utf-8")


def _parsed(path: Path, number: int, line: str) -> str:
    try:
        return _text(json.loads(line))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(
            f'{path}:{number}: each line must be a JSON object with a string "text" ({error})'
        ) from error


def _text(record: object) -> str:
    text = record["text"]  # type: ignore[index]
    if not isinstance(text, str):
        raise TypeError(f'"text" is a {type(text).__name__}')
    text.encode()  # JSON can write half a surrogate pair, which no tokenizer takes
    return text
