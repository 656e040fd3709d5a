"""The seam that every checkpoint family implements.

Knows what a reader gives back. Does not know any family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from monitor.dictionary.formats.card import Card
from monitor.dictionary.formats.place import Place
from monitor.dictionary.sae import SparseAutoencoder
from monitor.dictionary.storage.matrix import Matrix


@dataclass(frozen=True)
class Found:
    """A dictionary as a reader finds it: large matrices where they lie, everything else in memory."""

    matrices: Mapping[str, Matrix]
    """`encoder`, `decoder` and for gated dictionaries `gate_encoder`, as `SparseAutoencoder` names them."""
    parts: Mapping[str, Any]
    """All other fields of `SparseAutoencoder`."""
    card: Card
    files: tuple[Path, ...]
    """The files that define the dictionary's numbers; its digest is over these."""
    facts: tuple[str, ...] = ()
    """Numbers of its arithmetic that are in no file, such as `k=50` from a folder's name; part of the digest."""


@dataclass(frozen=True)
class Stored:
    """What was read."""

    autoencoder: SparseAutoencoder
    card: Card
    files: tuple[Path, ...]
    facts: tuple[str, ...] = ()
    format: str = ""
    """Name of the family."""
    home: Path = field(default_factory=Path)
    """Folder in which statistics, cards and labels are kept."""


class Reader(Protocol):
    """One checkpoint family."""

    @property
    def name(self) -> str:
        """What `--dictionary-format` calls it."""

    @property
    def wants(self) -> str:
        """The files that it needs, in words, for error messages."""

    def detects(self, place: Place) -> bool:
        """True where the files belong to this family. Fetches weights only to see the names in them."""

    def read(self, place: Place) -> Found:
        """The dictionary. DictionaryError where a file is missing, broken or of a kind that cannot be expressed."""
