"""The file of what labels are made from besides cards, `firings.jsonl.xz`: places where features fire, and others.

A header line, then one line per place that was drawn from the whole corpus, then one line per feature, in order. It is
needed to make labels again without reading the corpus, and for nothing else: a dictionary works without it.
"""

from __future__ import annotations

import itertools
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monitor.dictionary.cards.card_file import Context, context_of
from monitor.errors import DictionaryError

FILE = "firings.jsonl.xz"
_FORMAT = "sae-monitor.firings.v1"
_WRITE = "write it with `sae-monitor dictionary describe`, or remove it"
_PRESET = 1


@dataclass(frozen=True)
class DrawnPlace:
    """A token of the corpus that was drawn without regard to any feature, with the tokens around it."""

    at: int
    """Index of the drawn token."""
    tokens: tuple[str, ...]
    active: tuple[int, ...]
    """The features that are active at the drawn token."""


@dataclass(frozen=True)
class Firings:
    """What one pass over a corpus drew for labels."""

    places: tuple[DrawnPlace, ...]
    contexts: Iterable[tuple[Context, ...]]
    """For each feature, in order, places where it fires; `at` is the drawn token."""


def save(folder: Path, dictionary_digest: str, firings: Firings) -> Path:
    """Write the places to a dictionary's folder. Returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with lzma.open(path, "wt", encoding="utf-8", preset=_PRESET) as file:
        file.write(
            _line({"format": _FORMAT, "dictionary_digest": dictionary_digest, "places": len(firings.places)})
        )
        file.writelines(_line(asdict(place)) for place in firings.places)
        file.writelines(_line([asdict(context) for context in own]) for own in firings.contexts)
    return path


def load(folder: Path, dictionary_digest: str) -> Firings | None:
    """The places in a dictionary's folder, the contexts read as they are asked for; None where it has no such file.

    Raises DictionaryError where the file is broken or belongs to another dictionary.
    """
    if not (folder / FILE).is_file():
        return None
    lines = _records(folder / FILE)
    header = next(lines, None)
    try:
        if header is None or header["format"] != _FORMAT:
            raise DictionaryError(f"{FILE} is of another format than {_FORMAT}; {_WRITE}")
        if header["dictionary_digest"] != dictionary_digest:
            raise DictionaryError(
                f"{FILE} is of another dictionary ({header['dictionary_digest']}); {_WRITE}"
            )
        places = tuple(map(_place, itertools.islice(lines, int(header["places"]))))
        if len(places) < int(header["places"]):
            raise ValueError(f"{len(places)} of {header['places']} places")
    except (KeyError, ValueError, TypeError) as error:
        raise DictionaryError(f"{FILE} does not begin as it should ({error!r}); {_WRITE}") from None
    return Firings(places, _contexts(lines))


def _contexts(lines: Iterator[Any]) -> Iterator[tuple[Context, ...]]:
    for record in lines:
        try:
            yield tuple(context_of(context) for context in record)
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise DictionaryError(
                f"{FILE} holds a line that is no list of contexts ({error!r}); {_WRITE}"
            ) from None


def _place(record: dict[str, Any]) -> DrawnPlace:
    return DrawnPlace(
        int(record["at"]),
        tuple(map(str, record["tokens"])),
        tuple(int(feature) for feature in record["active"]),
    )


def _records(path: Path) -> Iterator[Any]:
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (lzma.LZMAError, EOFError, ValueError, RecursionError) as error:
        raise DictionaryError(f"{FILE} cannot be read ({error}); {_WRITE}") from None


def _line(record: dict[str, Any] | list[Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
