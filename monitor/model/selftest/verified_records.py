"""Measurements that `dictionary verify` accepted, kept beside the dictionary in the file `verified.json`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from monitor.errors import DictionaryError
from monitor.model.selftest.measurement import KindNumbers, Measurement

FILE = "verified.json"
_FORMAT = "sae-monitor.verified.v1"


@dataclass(frozen=True, slots=True)
class Record:
    """An accepted measurement of a dictionary with a model at a hook point."""

    dictionary: str
    """Digest of the dictionary."""
    model: str
    """Digest of the model."""
    place: str
    """Name of the hook point in TransformerLens."""
    dtype: str
    """The dtype of the model's weights."""
    texts: str
    """Digest of the test texts."""
    measured: Measurement
    norm_limit: float | None = None
    """Norm above which a residual counted as an attention sink's; None in a record that does not say."""


def load_records(folder: Path) -> tuple[Record, ...]:
    """All records beside a dictionary; none where there is no file. Raises DictionaryError for a broken file."""
    path = folder / FILE
    if not path.is_file():
        return ()
    try:
        content = json.loads(path.read_text("utf-8"))
        if content.get("format") != _FORMAT:
            raise DictionaryError(
                f"{path.name} has format {content.get('format')!r}; this version reads {_FORMAT!r}: delete it and run "
                "`sae-monitor dictionary verify` again"
            )
        return tuple(_record(entry) for entry in content["records"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DictionaryError(
            f"{path.name} is not a file of `sae-monitor dictionary verify` ({type(error).__name__}: {error}); "
            "delete it and run that again"
        ) from None


def save_record(folder: Path, record: Record) -> Path:
    """Write a record to the file and return its path.

    It replaces a record of the same model, hook point, dtype and texts. Records of a dictionary with another digest are
    removed.
    """
    key = _key(record)
    kept = [old for old in load_records(folder) if old.dictionary == record.dictionary and _key(old) != key]
    content = {"format": _FORMAT, "records": [asdict(entry) for entry in (*kept, record)]}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    path.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    return path


def best_record(records: Sequence[Record], wanted: Record) -> Record | None:
    """The record to compare a measurement with: one of the same dictionary, model and texts, or None.

    The same dtype and hook point are preferred. A record of another hook point counts too: a dictionary belongs to one
    hook point, so a measurement at another must fail.
    """
    same = [
        old
        for old in records
        if (old.dictionary, old.model, old.texts) == (wanted.dictionary, wanted.model, wanted.texts)
    ]
    same.sort(key=lambda old: (old.dtype == wanted.dtype, old.place == wanted.place))
    return same[-1] if same else None


def _key(record: Record) -> tuple[str, ...]:
    return record.model, record.place, record.dtype, record.texts


def _record(entry: dict[str, Any]) -> Record:
    names = {field.name for field in fields(Measurement)} - {"kinds"}
    given = entry["measured"]
    numbers = {name: float(value) for name, value in given.items() if name in names}
    kinds = tuple(
        KindNumbers(str(kind["kind"]), float(kind["l0"]), float(kind["explained_variance"]))
        for kind in given.get("kinds", ())
    )
    if not all(math.isfinite(value) for value in numbers.values()):
        raise ValueError("a number is not finite")
    measured = Measurement(**{**numbers, "tokens": int(numbers["tokens"])}, kinds=kinds)  # type: ignore[arg-type]
    return replace(Record(**{**entry, "measured": measured}))
