"""Where the files of a dictionary are: a folder or one file in it, on this machine or in a hub repository.

`Location` is what format readers work with. Folders of this machine are here, those of the hub in `hub`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from monitor.dictionary.formats.files import WEIGHTS
from monitor.errors import DictionaryError

STATISTICS = "statistics.safetensors"
OWN = (
    STATISTICS,
    "sparsity.safetensors",
    "cards.jsonl.xz",
    "firings.jsonl.xz",
    "labels.json",
    "training.json",
)
"""Files that sae-monitor and SAELens keep beside a dictionary; they are not taken for its weights."""
_DEPTH = 3


class Location(Protocol):
    """A folder that may hold a dictionary, or one file in it."""

    @property
    def label(self) -> str:
        """The source as the caller wrote it, for messages."""

    @property
    def address(self) -> str:
        """The full path. Some formats state layer, width or k only in the names of its folders."""

    @property
    def names(self) -> frozenset[str]:
        """Paths of the files relative to the folder, joined with `/`, a few folders deep."""

    @property
    def chosen(self) -> str | None:
        """Name of the file that the caller named; None where the caller named a folder."""

    @property
    def home(self) -> Path:
        """The folder for this dictionary's statistics, cards and labels. It may not exist yet."""

    def path(self, name: str) -> Path:
        """The path of this file on this machine; a file of the hub is downloaded first, or DictionaryError raised."""

    def parent_file(self, name: str) -> Path | None:
        """The path of a file in the parent folder; None where there is no such file."""


@dataclass(frozen=True)
class LocalFolder:
    """A folder on this machine, or one file in it."""

    label: str
    folder: Path
    names: frozenset[str]
    chosen: str | None = None

    @property
    def address(self) -> str:
        """See `Location`."""
        return (self.folder.resolve() / (self.chosen or "")).as_posix()

    @property
    def home(self) -> Path:
        """The folder itself, or, where the caller named a file, a folder beside that file."""
        return self.folder if self.chosen is None else self.folder / f"{self.chosen}.sae-monitor"

    def path(self, name: str) -> Path:
        """See `Location`."""
        return self.folder / name

    def parent_file(self, name: str) -> Path | None:
        """See `Location`."""
        found = self.folder.resolve().parent / name
        return found if found.is_file() else None


def local_folder(path: Path) -> LocalFolder:
    """The location of an existing folder or weights file. Raises DictionaryError for any other file."""
    if path.is_dir():
        return LocalFolder(str(path), path, frozenset(_files(path)))
    if path.suffix not in WEIGHTS:
        raise DictionaryError(
            f"{path} is not a weights file; give the folder that it is in, or a file that ends in {', '.join(WEIGHTS)}"
        )
    return LocalFolder(str(path), path.parent, frozenset(_files(path.parent)), path.name)


def weights_of(location: Location) -> str | None:
    """The weights file that the caller named, or the only one in the folder; None where there are none or several."""
    if location.chosen is not None:
        return location.chosen
    found = weight_files(name for name in location.names if "/" not in name)
    return found[0] if len(found) == 1 else None


def weight_files(names: Iterable[str]) -> list[str]:
    """The names that are of weights files, sorted; `OWN` files are left out."""
    return sorted(name for name in names if name.endswith(WEIGHTS) and PurePosixPath(name).name not in OWN)


def _files(folder: Path) -> Iterable[str]:
    """Relative paths of the files up to `_DEPTH` folders deep. Raises DictionaryError where listing fails."""
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
