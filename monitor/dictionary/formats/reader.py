"""The seam that every checkpoint family implements.

Knows what a reader gives back. Does not know any family.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from monitor.dictionary.autoencoder import SparseAutoencoder
from monitor.dictionary.formats.card import Card


@dataclass(frozen=True)
class Stored:
    """What a reader found."""

    autoencoder: SparseAutoencoder
    card: Card
    files: tuple[Path, ...]
    """The files that define the dictionary's numbers; its digest is over these."""


class Reader(Protocol):
    """One checkpoint family."""

    @property
    def name(self) -> str:
        """What `format=` calls it."""

    @property
    def wants(self) -> str:
        """The files that it needs, in words, for error messages."""

    def detects(self, folder: Path) -> bool:
        """True where the folder's files belong to this family; reads names only."""

    def read(self, folder: Path) -> Stored:
        """The dictionary, on the CPU in float32. DictionaryError where a file is missing, broken or unknown."""
