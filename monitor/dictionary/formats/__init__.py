"""How dictionaries are stored: one reader per checkpoint family, found from the files themselves.

Knows which reader a place belongs to. Does not know tensor names or arithmetic: each reader does.
A new family is a module with a `Reader` and one entry in `READERS`.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from monitor.dictionary.formats.card import Card, layer_of
from monitor.dictionary.formats.dictionary_learning import DictionaryLearningReader
from monitor.dictionary.formats.files import PICKLES
from monitor.dictionary.formats.gemma_scope import GemmaScopeReader
from monitor.dictionary.formats.gemma_scope_2 import GemmaScope2Reader
from monitor.dictionary.formats.hub import find_place
from monitor.dictionary.formats.llama_scope import LlamaScopeReader
from monitor.dictionary.formats.llamascopium import LlamascopiumReader
from monitor.dictionary.formats.openai import OpenAiReader
from monitor.dictionary.formats.place import Place, weight_files
from monitor.dictionary.formats.plain_relu import GOODFIRE, QRESEARCH
from monitor.dictionary.formats.qwen_scope import QwenScopeReader
from monitor.dictionary.formats.reader import Found, Reader, Stored
from monitor.dictionary.formats.saelens import SaeLensReader
from monitor.dictionary.formats.saelens_writer import save_saelens
from monitor.dictionary.formats.sparsify import SparsifyReader
from monitor.dictionary.storage.lazy import LARGE, held
from monitor.errors import DictionaryError

READERS: tuple[Reader, ...] = (
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
"""Names that `--dictionary-format` takes."""
_SHOWN = 8


def find_reader(place: Place, format: str | None = None) -> Reader:
    """The reader of this place; `format` overrides what the files look like.

    DictionaryError where none fits, or more than one.
    """
    if format is not None:
        return _by_name(format)
    fitting = [reader for reader in READERS if reader.detects(place)]
    if len(fitting) == 1:
        return fitting[0]
    raise DictionaryError(_several_fit(place, fitting) if fitting else _nothing_fits(place))


def read_dictionary(source: Path | str, format: str | None = None, *, large: int = LARGE) -> Stored:
    """The dictionary of a folder, a weights file or a hub repository, on the CPU in float32.

    One whose weights take `large` bytes or more stays in its files (`StoredAutoencoder`). DictionaryError on
    anything wrong.
    """
    place = find_place(source)
    reader = find_reader(place, format)
    found: Found = reader.read(place)
    autoencoder = held(dict(found.matrices), large=large, **found.parts)
    return Stored(autoencoder, found.card, found.files, found.facts, reader.name, place.home)


def _by_name(name: str) -> Reader:
    for reader in READERS:
        if reader.name == name:
            return reader
    raise DictionaryError(f"there is no dictionary format {name!r}; the formats are: {', '.join(FORMATS)}")


def _several_fit(place: Place, fitting: list[Reader]) -> str:
    wanted = "; ".join(f"{reader.name} wants {reader.wants}" for reader in fitting)
    return (
        f"{place.label} could be more than one kind of dictionary. Found: {_shown(sorted(place.names))}. {wanted}. "
        f"Say which with --dictionary-format"
    )


def _nothing_fits(place: Place) -> str:
    found = sorted(place.names) if place.chosen is None else [place.chosen]
    top = [name for name in found if "/" not in name]
    pickled = [name for name in top if name.endswith(PICKLES)]
    wanted = "".join(f"\n  {reader.name}: {reader.wants}" for reader in READERS)
    if below := _below(place):
        return f"{place.label} holds dictionaries in folders of its own: name one of them. Found: {_shown(below)}"
    if len(weight_files(top)) > 1:
        return (
            f"{place.label} holds several weights files ({_shown(weight_files(top))}): name the file, as in "
            f"{place.label.rstrip('/')}/{weight_files(top)[0]}, or say what it is with --dictionary-format:{wanted}"
        )
    hint = ""
    if pickled:
        hint = (
            " Pickles can run code when they are opened, so nothing but tensors and plain values is read from them: "
            "if it is of another kind, open it where you trust it, and save it as safetensors in the SAELens layout."
        )
    return (
        f"{place.label} is no dictionary that is recognised. Found: {_shown(found)}.{hint} Say what it is with "
        f"--dictionary-format; the formats are:{wanted}"
    )


def _below(place: Place) -> list[str]:
    """Folders further down that hold weights."""
    if place.chosen is not None:
        return []
    folders = {str(PurePosixPath(name).parent) for name in weight_files(place.names) if "/" in name}
    return sorted(folders) if not weight_files(name for name in place.names if "/" not in name) else []


def _shown(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return (", ".join(names[:_SHOWN]) or "nothing") + (f" and {more} more" if more > 0 else "")


__all__ = [
    "Card",
    "FORMATS",
    "READERS",
    "Reader",
    "Stored",
    "find_place",
    "find_reader",
    "layer_of",
    "read_dictionary",
    "save_saelens",
]
