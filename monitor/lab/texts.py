"""Files of texts: rows of text, label and group for contrasting and measuring; whole documents for a corpus.

Rows stand in `.jsonl` (one object a line), `.csv` (a header line) or `.txt` (one text a line). Documents stand in the
same files, where a `.txt` file is one long document, and in `.md`, `.rst` and `.py`. All may be
packed as `.xz` or `.gz`.
"""

from __future__ import annotations

import csv
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from monitor.dictionary.packed_text import Document, characters_of, document_of, shortened
from monitor.errors import InputError

_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
_DOCUMENTS = frozenset({".md", ".py", ".rst"})
ROWS = frozenset({".csv", ".jsonl", ".txt"})
"""Endings of files that hold rows."""
COLUMNS = ("text", "label", "group", "kind")
"""What is read of a row; further columns are ignored."""
_LABELS = {"1": True, "true": True, "0": False, "false": False, "": None}


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One row: a text, whether it was marked as positive, and what ties it to other rows."""

    text: str
    label: bool | None = None
    """None where the file does not say."""
    group: str = ""
    """Rows of one group share a prompt, a pair or a template; empty where the row stands alone."""
    kind: str = ""
    """`response` where only what follows the last `Assistant:` is judged; otherwise the whole text is."""


def read_texts(path: Path) -> list[LabelledText]:
    """Every row of a file; InputError where there is none or a line is wrong."""
    _check(path)
    found = list(_rows(path))
    if not found:
        raise InputError(f"{path.name} holds no text; give at least one line that is not blank")
    return found


def read_labelled(path: Path) -> list[LabelledText]:
    """Every row of a file whose rows all have a label; InputError with the line of the first that has none."""
    _check(path)
    found = []
    for number, row in _numbered(path):
        if row.label is None:
            raise InputError(
                f"{path.name}:{number}: no label; write 1 (the concept is there) or 0 on each row"
            )
        if not row.text.strip():
            raise InputError(f"{path.name}:{number}: the text is blank; write one, or delete the row")
        found.append(row)
    if not found:
        raise InputError(f"{path.name} holds no text; give at least one line that is not blank")
    return found


def first_row(path: Path) -> LabelledText | None:
    """The first row of a file, to see what the file holds; None for an empty one, InputError for a wrong one."""
    _check(path)
    return next(_rows(path), None)


def corpus_files(paths: Iterable[Path]) -> list[Path]:
    """The readable files among `paths` and in the folders among them, in a fixed order; InputError if none."""
    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        known = [p for p in inside if kind_of(p) in ROWS | _DOCUMENTS]
        if not path.exists():
            raise InputError(f"no file or folder at {path}")
        if not known:
            raise InputError(f"{path} holds no .txt, .jsonl, .csv, .md, .rst or .py file (plain, .xz or .gz)")
        files.extend(known)
    return files


def in_equal_shares(files: Iterable[Path], characters: int) -> Iterator[Document]:
    """Documents of all files, the file that gave least so far coming next; of each its first `characters`.

    A line of JSON may hold the `messages` of a conversation instead of a `text`.

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
        given[name] += min(characters_of(text), characters)
        if not isinstance(text, str) or text.strip():
            yield shortened(text, characters)


def kind_of(path: Path) -> str:
    """The suffix that says what is inside a file, below the one that says how it is packed."""
    return Path(path.stem).suffix if path.suffix in _OPENERS else path.suffix


def _sources(files: Iterable[Path], characters: int) -> dict[str, Iterator[Document]]:
    sources: dict[str, Iterator[Document]] = {}
    whole: dict[str, list[Path]] = {}
    for path in files:
        if kind_of(path) == ".jsonl":
            sources[str(path)] = _documents(path)
        elif kind_of(path) == ".csv":
            sources[str(path)] = (row.text for row in _rows(path))
        elif kind_of(path) == ".txt":
            sources[str(path)] = _pieces(path, characters)
        else:
            whole.setdefault(kind_of(path), []).append(path)
    for kind, paths in whole.items():
        sources[kind] = (_whole(path) for path in paths)
    return sources


def _check(path: Path) -> None:
    if not path.is_file():
        raise InputError(
            f"no file at {path}; give a .txt file (a text per line), a .jsonl file or a .csv file"
        )
    if kind_of(path) not in ROWS:
        raise InputError(
            f"{path.name} is neither .txt (a text per line), .jsonl (objects with `text`) nor .csv (a header line)"
        )


def _documents(path: Path) -> Iterator[Document]:
    """Texts and conversations, a line each."""
    return (document for document, _ in documents_with_rows(path))


def documents_with_rows(path: Path) -> Iterator[tuple[Document, Mapping[str, Any]]]:
    """Texts and conversations of a .jsonl file, each with the whole object that it stands in; InputError for others."""
    with _opened(path) as file, _readable(path):
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                    yield document_of(row), row
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{path.name}:{number}: {error}") from None


def _pieces(path: Path, characters: int) -> Iterator[str]:
    with _opened(path, errors="replace") as file, _readable(path):
        while piece := file.read(characters):
            yield piece


def _whole(path: Path) -> str:
    with _opened(path, errors="replace") as file, _readable(path):
        return file.read()


def _rows(path: Path) -> Iterator[LabelledText]:
    return (row for _, row in _numbered(path))


def _numbered(path: Path) -> Iterator[tuple[int, LabelledText]]:
    """Rows with the lines on which they stand."""
    with _opened(path) as file, _readable(path):
        if kind_of(path) == ".csv":
            yield from _csv_rows(path, file)
            return
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, _line(path, number, line)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """InputError where the file is cut short, not packed as its name says, or not UTF-8."""
    try:
        yield
    except (UnicodeDecodeError, lzma.LZMAError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path.name} cannot be read: {error}") from None


def _csv_rows(path: Path, file: TextIO) -> Iterator[tuple[int, LabelledText]]:
    """Rows of a comma-separated file whose first line names the columns."""
    table = csv.DictReader(file, strict=True)
    try:
        heads = [head.strip().lstrip("\ufeff") for head in table.fieldnames or ()]
        if heads and "text" not in heads:
            raise InputError(
                f"{path.name}:1: no column `text`; the first line names {', '.join(heads)[:80]}: "
                "write `text,label` or `text,label,group`"
            )
        table.fieldnames = heads
        for record in table:
            yield table.line_num, _record(path, table.line_num, record, _csv_label)
    except csv.Error as error:
        raise InputError(f"{path.name}:{table.line_num}: {error}; quote texts, or use .jsonl") from None


def _line(path: Path, number: int, line: str) -> LabelledText:
    if kind_of(path) == ".txt":
        return LabelledText(line.rstrip("\n"))
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}:{number}: not JSON ({error}); each line is one object") from None
    return _record(path, number, record, _json_label)


def _record(path: Path, number: int, record: Any, label_of: Callable[[Any], bool | None]) -> LabelledText:
    """A row from its columns; InputError where one is not what it should be."""
    where = f"{path.name}:{number}"
    if isinstance(record, dict) and None in record:
        raise InputError(f"{where}: more cells than the first line names; put texts with commas into quotes")
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        hint = "fill the column `text`" if kind_of(path) == ".csv" else 'write {"text": "…"} on each line'
        raise InputError(f"{where}: no text; {hint}")
    if not _encodable(text):
        raise InputError(f"{where}: the text holds half a surrogate pair, which is no character")
    try:
        label = label_of(record.get("label"))
    except (KeyError, TypeError):
        raise InputError(f"{where}: `label` is {record['label']!r}; write 1 or 0") from None
    return LabelledText(text, label, *(_word(where, record, name) for name in ("group", "kind")))


def _json_label(value: Any) -> bool | None:
    if value is None:
        return None
    if value not in (0, 1):
        raise KeyError(value)
    return bool(value)


def _csv_label(value: Any) -> bool | None:
    return _LABELS[(value or "").strip().lower()]


def _word(where: str, record: dict[str, Any], name: str) -> str:
    value = record.get(name)
    if value is None:
        return ""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise InputError(f"{where}: `{name}` is {value!r}; write a word or a number")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _opened(path: Path, errors: str = "strict") -> TextIO:
    if not path.is_file():
        raise InputError(f"no file at {path}")
    newline = "" if kind_of(path) == ".csv" else None
    opener = _OPENERS.get(path.suffix)
    if opener is None:
        return path.open(encoding="utf-8-sig", errors=errors, newline=newline)
    return cast(TextIO, opener(path, "rt", encoding="utf-8-sig", errors=errors, newline=newline))
