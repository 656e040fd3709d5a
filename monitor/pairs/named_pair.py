"""A pair that has a name: where its model and its dictionary lie, what it is, and how to get what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from monitor.errors import DictionaryError, ModelError


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
    """The command that gets weights which are not here; empty where they come with the package."""
    digest: str = ""
    """Digest of the model, where the weights come from elsewhere and could be others; else empty."""
    original: str = ""
    """Name on the hub of the model that these weights were quantised from; else empty."""

    def model_path(self) -> Path:
        """Where the model lies. ModelError with the command that gets it, where it is not here."""
        found = self.weights()
        if found is None:
            raise ModelError(
                f"the weights of the pair {self.name} ({self.what}) are not on this machine: `{self.get}` gets them, "
                "or give a file with --model; `--pair tiny` needs nothing"
            )
        return found

    def dictionary_path(self) -> Path:
        """Where the dictionary lies. DictionaryError where this installation has none."""
        if not self.dictionary.is_dir():
            raise DictionaryError(
                f"the pair {self.name} has no dictionary in this installation ({self.dictionary}): give one with "
                "--model and --dictionary, or take --pair tiny"
            )
        return self.dictionary
