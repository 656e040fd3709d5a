"""A pair that has a name: where its model and its dictionary lie, what it is, and how to get what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import DictionaryError, ModelError

GET_DATA = "pip install sae-monitor-pairs"
"""Brings the dictionaries, and the weights of `tiny`; a checkout has them."""


@dataclass(frozen=True)
class NamedPair:
    """A model and its dictionary that can be opened by one name."""

    name: str
    what: str
    """What it is, in one line."""
    licence: str
    """Licences of the weights and of the dictionary."""
    model: str
    """What the model is called, for callers and in traces."""
    weights: Callable[[], Path | None]
    """Finds the model on this machine: a folder or a GGUF file, or None where it is not here."""
    dictionary: Path
    """The folder of the dictionary."""
    get: str = ""
    """The command that gets weights which are not here; empty where they come with the dictionary."""
    digest: str = ""
    """Digest of the model, where the weights come from elsewhere and could be others; else empty."""
    original: str = ""
    """Name on the hub of the model that these weights were quantised from; else empty."""

    def model_path(self) -> Path:
        """Where the model lies. ModelError with the command that gets it, where it is not here."""
        found = self.weights()
        if found is None:
            more = ", or give a file with --model; `--pair tiny` needs nothing" if self.get else ""
            raise ModelError(
                f"the weights of the pair {self.name} ({self.what}) are not on this machine: `{self.get or GET_DATA}` "
                f"gets them{more}"
            )
        return found

    def dictionary_path(self) -> Path:
        """Where the dictionary lies. DictionaryError where this installation has none."""
        if not self.dictionary.is_dir():
            raise DictionaryError(
                f"the dictionary of the pair {self.name} is not in this installation ({self.dictionary}): `{GET_DATA}` "
                "gets it, or give --model and --dictionary"
            )
        return self.dictionary
