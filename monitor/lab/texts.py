"""Texts from files: for contrasting (every text) and for describing (a corpus, files in equal shares).

Knows `.jsonl` (an object with `text` per line), `.txt` (to contrast: a text per line; as a corpus: one long
document) and whole documents (`.md`, `.rst`, `.py`), all also as `.xz` or `.gz`. Does not know tokens.
"""

from __future__ import annotations

import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from monitor.errors import InputError

_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
_DOCUMENTS = frozenset({".md", ".py", ".rst"})
_LINES = frozenset({".txt", ".jsonl"})


@dataclass(frozen=True)
class LabelledText:
    """A text, and whether it was marked as positive where the file says."""

    text: str
    label: bool | None = None


def read_texts(path: Path) -> list[LabelledText]:
    """Every text of a `.txt` or `.jsonl` file; InputError where there is none or a line is wrong."""
    if not path.is_file():
        raise InputError(f"no file at {path}; give a .txt file (a text per line) or a .jsonl file")
    if _kind(path) not in _LINES:
        raise InputError(f"{path.name} is neither .txt (a text per line) nor .jsonl (objects with `text`)")
    found = list(_rows(path))
    if not found:
        raise InputError(f"{path.name} holds no text; give at least one line that is not blank")
    return found


def corpus_files(paths: Iterable[Path]) -> list[Path]:
    """The readable files among `paths` and in the folders among them, in a fixed order; InputError if none."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        known = [p for p in inside if _kind(p) in _LINES | _DOCUMENTS]
        if not path.exists():
            raise InputError(f"no file or folder at {path}")
        if not known:
            raise InputError(f"{path} holds no .txt, .jsonl, .md, .rst or .py file (plain, .xz or .gz)")
        files.extend(known)
    return files


def in_equal_shares(files: Iterable[Path], characters: int) -> Iterator[str]:
    """Documents of all files, the file that gave least so far coming next; of each its first `characters`.

    A `.txt` file is read whole, in pieces of that many characters. The `.md`, `.rst` and `.py` files of a kind
    count as one file together.
    """
    sources = _sources(files, characters)
    given = dict.fromkeys(sources, 0)
    while given:
        name = min(given, key=lambda key: given[key])
        text = next(sources[name], None)
        if text is None:
            del given[name]
            continue
        given[name] += min(len(text), characters)
        if text.strip():
            yield text[:characters]


def _sources(files: Iterable[Path], characters: int) -> dict[str, Iterator[str]]:
    sources: dict[str, Iterator[str]] = {}
    whole: dict[str, list[Path]] = {}
    for path in files:
        if _kind(path) == ".jsonl":
            sources[str(path)] = (row.text for row in _rows(path))
        elif _kind(path) == ".txt":
            sources[str(path)] = _pieces(path, characters)
        else:
            whole.setdefault(_kind(path), []).append(path)
    for kind, paths in whole.items():
        sources[kind] = (_whole(path) for path in paths)
    return sources


def _kind(path: Path) -> str:
    """The suffix that says what is inside, below the one that says how it is packed."""
    return Path(path.stem).suffix if path.suffix in _OPENERS else path.suffix


def _pieces(path: Path, characters: int) -> Iterator[str]:
    with _opened(path, errors="replace") as file, _readable(path):
        while piece := file.read(characters):
            yield piece


def _whole(path: Path) -> str:
    with _opened(path, errors="replace") as file, _readable(path):
        return file.read()


def _rows(path: Path) -> Iterator[LabelledText]:
    with _opened(path) as file, _readable(path):
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _row(path, number, line)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """InputError where the file is cut short, not packed as its name says, or not UTF-8."""
    try:
        yield
    except (UnicodeDecodeError, lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from None


def _row(path: Path, number: int, line: str) -> LabelledText:
    if _kind(path) == ".txt":
        return LabelledText(line.rstrip("\n"))
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}:{number}: not JSON ({error}); each line is one object") from None
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        raise InputError(f'{path.name}:{number}: no text; write {{"text": "…"}} on each line')
    if not _encodable(text):
        raise InputError(f"{path.name}:{number}: the text holds half a surrogate pair, which is no character")
    if (label := record.get("label")) not in (None, 0, 1, True, False):
        raise InputError(f"{path.name}:{number}: `label` is {label!r}; write 1 or 0")
    return LabelledText(text, None if label is None else bool(label))


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _opened(path: Path, errors: str = "strict") -> TextIO:
    if not path.is_file():
        raise InputError(f"no file at {path}")
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        return path.open(encoding="utf-8", errors=errors)
    return cast(TextIO, opener(path, "rt", encoding="utf-8", errors=errors))
