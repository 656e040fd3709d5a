"""Readers for the formats in which dictionaries are published, one module per format.

`read_dictionary` picks the reader by looking at the files. To support a new format, add a module with a
`FormatReader` and list it in `READERS`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from monitor.dictionary.formats.card import DictionaryCard, layer_of
from monitor.dictionary.formats.dictionary_learning import DictionaryLearningReader
from monitor.dictionary.formats.files import PICKLES
from monitor.dictionary.formats.gemma_scope import GemmaScopeReader
from monitor.dictionary.formats.gemma_scope_2 import GemmaScope2Reader
from monitor.dictionary.formats.hub import find_location
from monitor.dictionary.formats.llama_scope import LlamaScopeReader
from monitor.dictionary.formats.llamascopium import LlamascopiumReader
from monitor.dictionary.formats.location import Location, weight_files
from monitor.dictionary.formats.openai import OpenAiReader
from monitor.dictionary.formats.plain_relu import GOODFIRE, QRESEARCH
from monitor.dictionary.formats.qwen_scope import QwenScopeReader
from monitor.dictionary.formats.reader import DictionaryParts, FormatReader, OpenedDictionary
from monitor.dictionary.formats.saelens import SaeLensReader
from monitor.dictionary.formats.saelens_writer import save_saelens
from monitor.dictionary.formats.sparsify import SparsifyReader
from monitor.dictionary.storage.stored_autoencoder import LARGE, build_autoencoder
from monitor.errors import DictionaryError

READERS: tuple[FormatReader, ...] = (
    SaeLensReader(),
    GemmaScopeReader(),
    GemmaScope2Reader(),
    LlamaScopeReader(),
    LlamascopiumReader(),
    SparsifyReader(),
    DictionaryLearningReader(),
    OpenAiReader(),
    GOODFIRE,
    QRESEARCH,
    QwenScopeReader(),
)

FORMATS = tuple(reader.name for reader in READERS)
"""The values of `--dictionary-format`."""
_SHOWN = 8


def find_reader(location: Location, format: str | None = None) -> FormatReader:
    """The reader whose format the files have, or the one named `format`.

    Raises DictionaryError where no reader fits, or more than one.
    """
    if format is not None:
        return _by_name(format)
    fitting = [reader for reader in READERS if reader.detects(location)]
    if len(fitting) == 1:
        return fitting[0]
    raise DictionaryError(_several_fit(location, fitting) if fitting else _nothing_fits(location))


def read_dictionary(source: Path | str, format: str | None = None, *, large: int = LARGE) -> OpenedDictionary:
    """Read a dictionary from a folder, a weights file or a hub repository, to the CPU in float32.

    A dictionary whose weights take `large` bytes or more stays in its files and is read on demand
    (`StoredAutoencoder`). Raises DictionaryError where files are missing, broken or of an unknown format.
    """
    location = find_location(source)
    reader = find_reader(location, format)
    found: DictionaryParts = reader.read(location)
    autoencoder = build_autoencoder(dict(found.matrices), large=large, **found.parts)
    return OpenedDictionary(autoencoder, found.card, found.files, found.facts, reader.name, location.home)


def _by_name(name: str) -> FormatReader:
    for reader in READERS:
        if reader.name == name:
            return reader
    raise DictionaryError(f"there is no dictionary format {name!r}; the formats are: {', '.join(FORMATS)}")


def _several_fit(location: Location, fitting: list[FormatReader]) -> str:
    wanted = "; ".join(f"{reader.name} wants {reader.wants}" for reader in fitting)
    return (
        f"{location.label} could be a dictionary of more than one format. Found: {_shown(sorted(location.names))}. "
        f"{wanted}. Name the format with --dictionary-format"
    )


def _nothing_fits(location: Location) -> str:
    found = sorted(location.names) if location.chosen is None else [location.chosen]
    top = [name for name in found if "/" not in name]
    pickled = [name for name in top if name.endswith(PICKLES)]
    wanted = "".join(f"\n  {reader.name}: {reader.wants}" for reader in READERS)
    if below := _below(location):
        return (
            f"{location.label} has dictionaries in its subfolders: name one of them. Found: {_shown(below)}"
        )
    if len(weight_files(top)) > 1:
        return (
            f"{location.label} holds several weights files ({_shown(weight_files(top))}): name the file, as in "
            f"{location.label.rstrip('/')}/{weight_files(top)[0]}, or name the format with --dictionary-format:{wanted}"
        )
    hint = ""
    if pickled:
        hint = (
            " A pickled file can run code when it is opened, so only tensors and plain values are read from one. "
            "If this file holds anything else, open it on a machine where that is safe, and save the dictionary as "
            "safetensors in the SAELens layout."
        )
    return (
        f"{location.label} has no dictionary of a known format. Found: {_shown(found)}.{hint} Name the format with "
        f"--dictionary-format; the formats are:{wanted}"
    )


def _below(location: Location) -> list[str]:
    """Subfolders that hold weights, where the folder itself holds none."""
    if location.chosen is not None:
        return []
    folders = {str(PurePosixPath(name).parent) for name in weight_files(location.names) if "/" in name}
    return sorted(folders) if not weight_files(name for name in location.names if "/" not in name) else []


def _shown(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "nothing") + (f" and {more} more" if more > 0 else "")


__all__ = [
    "DictionaryCard",
    "FORMATS",
    "READERS",
    "FormatReader",
    "OpenedDictionary",
    "find_location",
    "find_reader",
    "layer_of",
    "read_dictionary",
    "save_saelens",
]
