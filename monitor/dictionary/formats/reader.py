"""The interface of a format reader, and the records that reading returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from monitor.dictionary.formats.card import DictionaryCard
from monitor.dictionary.formats.location import Location
from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.storage.matrix import Matrix


@dataclass(frozen=True)
class DictionaryParts:
    """What a format reader gives: the matrices, which may still be in their files, and all other parts in memory."""

    matrices: Mapping[str, Matrix]
    """`encoder`, `decoder` and, for gated dictionaries, `gate_encoder`, named as in `SparseAutoencoder`."""
    parts: Mapping[str, Any]
    """The other fields of `SparseAutoencoder`, by name."""
    card: DictionaryCard
    files: tuple[Path, ...]
    """The files that define the dictionary's numbers. Its digest is computed from them."""
    facts: tuple[str, ...] = ()
    """Numbers that encoding needs and no file holds, such as `k=50` from a folder's name. Part of the digest."""


@dataclass(frozen=True)
class OpenedDictionary:
    """A dictionary that can encode, with its card and where it came from."""

    autoencoder: SparseAutoencoder
    card: DictionaryCard
    files: tuple[Path, ...]
    """See `DictionaryParts`."""
    facts: tuple[str, ...] = ()
    """See `DictionaryParts`."""
    format: str = ""
    """Name of the format."""
    home: Path = field(default_factory=Path)
    """The folder for statistics, cards and labels."""


class FormatReader(Protocol):
    """Recognises and reads one format."""

    @property
    def name(self) -> str:
        """The value of `--dictionary-format` that selects it."""

    @property
    def wants(self) -> str:
        """The files that the format needs, in words, for error messages."""

    def detects(self, location: Location) -> bool:
        """True where the files have this format. Weights are downloaded only where their tensor names must be seen."""

    def read(self, location: Location) -> DictionaryParts:
        """Read the dictionary.

        Raises DictionaryError where a file is missing or broken, or the dictionary is of a kind that
        `SparseAutoencoder` cannot express.
        """
