"""How dictionaries are stored: one reader per checkpoint family, found from the files themselves.

Knows which reader a folder belongs to. Does not know tensor names or arithmetic: each reader does.
A new family is a module with a `Reader` and one entry in `READERS`.
"""

from __future__ import annotations

from pathlib import Path

from monitor.dictionary.formats.card import Card, layer_of
from monitor.dictionary.formats.reader import Reader, Stored
from monitor.dictionary.formats.saelens import SaeLensReader
from monitor.dictionary.formats.saelens_writer import save_saelens
from monitor.errors import DictionaryError

READERS: tuple[Reader, ...] = (SaeLensReader(),)

PICKLES = (".pt", ".pth", ".bin", ".pkl", ".ckpt", ".npz")
"""Endings of files that can run code when they are opened carelessly."""


def find_reader(folder: Path, format: str | None = None) -> Reader:
    """The reader of this folder; `format` overrides what the files look like. DictionaryError where none fits."""
    if not folder.exists():
        raise DictionaryError(f"{folder} does not exist; give the folder that holds cfg.json and the weights")
    if not folder.is_dir():
        raise DictionaryError(f"{folder} is a file; give the folder that it is in")
    if format is not None:
        return _by_name(format)
    for reader in READERS:
        if reader.detects(folder):
            return reader
    raise DictionaryError(_nothing_fits(folder))


def read_dictionary(folder: Path, format: str | None = None) -> Stored:
    """The dictionary stored in this folder, on the CPU in float32. DictionaryError on anything wrong."""
    return find_reader(folder, format).read(folder)


def _by_name(name: str) -> Reader:
    for reader in READERS:
        if reader.name == name:
            return reader
    known = ", ".join(reader.name for reader in READERS)
    raise DictionaryError(f"there is no dictionary format {name!r}; the formats are: {known}")


def _nothing_fits(folder: Path) -> str:
    found = sorted(path.name for path in folder.iterdir())
    pickled = [name for name in found if name.endswith(PICKLES)]
    if pickled:
        return (
            f"{folder} holds a pickled dictionary ({', '.join(pickled[:4])}). Pickles can run code when they are "
            "opened, so they are refused: open it where you trust it, and save it as safetensors in the "
            "SAELens layout (cfg.json and sae_weights.safetensors)"
        )
    wanted = "; ".join(f"{reader.name}: {reader.wants}" for reader in READERS)
    shown = ", ".join(found[:8]) or "nothing"
    return f"{folder} is no dictionary that can be read. Found: {shown}. Known formats are {wanted}"


__all__ = [
    "Card",
    "READERS",
    "Reader",
    "Stored",
    "find_reader",
    "layer_of",
    "read_dictionary",
    "save_saelens",
]
