"""Where a dictionary lies: a folder, one file of a folder, or either in a hub repository (`hub`).

Knows names of files, not what is in them. Does not know families.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from monitor.dictionary.formats.files import WEIGHTS
from monitor.errors import DictionaryError

STATISTICS = "statistics.safetensors"
OWN = (STATISTICS, "sparsity.safetensors", "cards.jsonl.xz", "labels.json", "training.json")
"""Files that lie beside a dictionary and are none."""
_DEPTH = 3


class Place(Protocol):
    """Files that may be a dictionary."""

    @property
    def label(self) -> str:
        """As the caller named it, for messages."""

    @property
    def address(self) -> str:
        """The full path, in whose folder names some families write layer, width or k."""

    @property
    def names(self) -> frozenset[str]:
        """Paths of the files relative to the folder, with `/`, a few folders deep."""

    @property
    def chosen(self) -> str | None:
        """The one file that the caller named; None where it was a folder."""

    @property
    def home(self) -> Path:
        """Folder in which statistics, cards and labels of this dictionary are kept; may not exist yet."""

    def path(self, name: str) -> Path:
        """A file on this machine; DictionaryError where it does not exist or cannot be had."""

    def above(self, name: str) -> Path | None:
        """A file of the folder that this folder is in; None where it has none of that name."""


@dataclass(frozen=True)
class LocalPlace:
    """A folder on this machine, or one file in it."""

    label: str
    folder: Path
    names: frozenset[str]
    chosen: str | None = None

    @property
    def address(self) -> str:
        """See `Place`."""
        return (self.folder.resolve() / (self.chosen or "")).as_posix()

    @property
    def home(self) -> Path:
        """The folder itself; of one file among others a folder beside it."""
        return self.folder if self.chosen is None else self.folder / f"{self.chosen}.sae-monitor"

    def path(self, name: str) -> Path:
        """See `Place`."""
        return self.folder / name

    def above(self, name: str) -> Path | None:
        """See `Place`."""
        found = self.folder.resolve().parent / name
        return found if found.is_file() else None


def local_place(path: Path) -> LocalPlace:
    """The place at a path that exists. DictionaryError for a file that holds no weights."""
    if path.is_dir():
        return LocalPlace(str(path), path, frozenset(_files(path)))
    if path.suffix not in WEIGHTS:
        raise DictionaryError(
            f"{path} is a file that holds no weights; give the folder that it is in, or a file that ends in "
            f"{', '.join(WEIGHTS)}"
        )
    return LocalPlace(str(path), path.parent, frozenset(_files(path.parent)), path.name)


def weights_of(place: Place) -> str | None:
    """The weights file that the caller named, or the only one directly in the folder; None where there are more."""
    if place.chosen is not None:
        return place.chosen
    found = weight_files(name for name in place.names if "/" not in name)
    return found[0] if len(found) == 1 else None


def weight_files(names: Iterable[str]) -> list[str]:
    """Those of the names that end as weights do, without what this project keeps beside a dictionary."""
    return sorted(name for name in names if name.endswith(WEIGHTS) and PurePosixPath(name).name not in OWN)


def _files(folder: Path) -> Iterable[str]:
    """Files up to a few folders deep; a folder that cannot be listed is refused."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise DictionaryError(f"{folder} cannot be listed: {error.strerror}") from error
    for entry in entries:
        yield from _below(entry, entry.name, 1)


def _below(path: Path, name: str, depth: int) -> Iterable[str]:
    if path.is_file():
        yield name
    elif depth < _DEPTH and path.is_dir():
        for entry in sorted(path.iterdir()):
            yield from _below(entry, f"{name}/{entry.name}", depth + 1)
