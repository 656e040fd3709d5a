"""The file of feature cards, `cards.jsonl.xz`: a header line, then one line per feature in order.

A card holds texts, not token ids, so that reading it needs no tokenizer.
"""

from __future__ import annotations

import itertools
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from monitor.errors import DictionaryError, NotFound

FILE = "cards.jsonl.xz"
_FORMAT = "sae-monitor.cards.v1"
_WRITE = "write it with `sae-monitor dictionary describe`"


@dataclass(frozen=True)
class Context:
    """A window of tokens around a strong activation of a feature."""

    peak: float
    """The highest activation in the window."""
    at: int
    """Index of the token with the highest activation."""
    tokens: tuple[str, ...]
    """The text of each token of the window."""
    levels: tuple[int, ...]
    """Activation at each token in percent of the feature's recorded maximum, rounded up to 1 where it is active."""


@dataclass(frozen=True)
class FeatureCard:
    """What one feature does, as measured; its label is kept in `labels`."""

    feature: int
    contexts: tuple[Context, ...]
    """Its strongest contexts, each from another document, strongest first."""
    promoted: tuple[tuple[str, float], ...]
    """The tokens whose logits its decoder row raises most, with the change relative to the vocabulary's mean."""
    suppressed: tuple[tuple[str, float], ...]
    """The tokens whose logits its decoder row lowers most, likewise."""
    neighbours: tuple[tuple[int, float], ...]
    """The nearest features by decoder cosine, with the cosines."""


@dataclass(frozen=True)
class CardsHeader:
    """The header of a file of cards."""

    features: int
    """Number of features, and so of cards."""
    model: str
    """Digest of the model."""
    dictionary_digest: str
    corpus: str
    """Description of the corpus, in words."""
    tokens: int
    """Number of tokens that were read."""


def save(folder: Path, header: CardsHeader, cards: Iterable[FeatureCard]) -> Path:
    """Write the cards, given in the order of the features, to a dictionary's folder. Returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    with lzma.open(path, "wt", encoding="utf-8", preset=6) as file:
        file.write(_line({"format": _FORMAT} | asdict(header)))
        file.writelines(_line(asdict(card)) for card in cards)
    return path


def load_header(folder: Path) -> CardsHeader:
    """The header of the folder's cards. Raises DictionaryError where there are none or the file is broken."""
    return _header(next(_lines(folder), ""))


def load_card(folder: Path, feature: int) -> FeatureCard:
    """One feature's card. Raises NotFound for a feature that does not exist, DictionaryError without cards."""
    lines = _lines(folder)
    header = _header(next(lines, ""))
    if not 0 <= feature < header.features:
        raise NotFound(
            f"feature {feature} does not exist; the dictionary has features 0 to {header.features - 1}"
        )
    line = next(itertools.islice(lines, feature, None), None)
    if line is None:
        raise DictionaryError(f"{FILE} ends before feature {feature}; {_WRITE}")
    card = card_of(line)
    if card.feature != feature:
        raise DictionaryError(f"{FILE} holds feature {card.feature} where {feature} belongs; {_WRITE}")
    return card


def load_cards(folder: Path) -> Iterator[FeatureCard]:
    """All cards in the order of the features. Raises DictionaryError where there are none or the file is broken."""
    lines = _lines(folder)
    _header(next(lines, ""))
    return map(card_of, lines)


def opened_lines(folder: Path) -> tuple[CardsHeader, Iterator[str]]:
    """The header, and a line for each card in order; see `card_of`. Raises DictionaryError as `load_cards`."""
    lines = _lines(folder)
    return _header(next(lines, "")), lines


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def _lines(folder: Path) -> Iterator[str]:
    path = folder / FILE
    if not path.is_file():
        raise DictionaryError(f"{folder} has no feature cards ({FILE}); {_WRITE}")
    try:
        with lzma.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except (lzma.LZMAError, EOFError, UnicodeDecodeError) as error:
        raise DictionaryError(f"{FILE} cannot be read ({error}); {_WRITE}") from None


def _header(line: str) -> CardsHeader:
    try:
        record = json.loads(line)
        if record.pop("format") != _FORMAT:
            raise DictionaryError(f"{FILE} is of another format than {_FORMAT}; {_WRITE}")
        header = CardsHeader(**record)
        counts, texts = (
            (header.features, header.tokens),
            (header.model, header.dictionary_digest, header.corpus),
        )
        if not all(type(n) is int and n >= 0 for n in counts) or not all(isinstance(t, str) for t in texts):
            raise ValueError("a count is not a whole number, or a name is not a text")
        return header
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DictionaryError(f"{FILE} begins with no header ({error}); {_WRITE}") from None


def card_of(line: str) -> FeatureCard:
    """The card in a line of the file. Raises DictionaryError where it holds none."""
    try:
        record = json.loads(line)
        return FeatureCard(
            feature=int(record["feature"]),
            contexts=tuple(context_of(context) for context in record["contexts"]),
            promoted=tuple((str(text), float(value)) for text, value in record["promoted"]),
            suppressed=tuple((str(text), float(value)) for text, value in record["suppressed"]),
            neighbours=tuple((int(other), float(cosine)) for other, cosine in record["neighbours"]),
        )
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise DictionaryError(f"{FILE} holds a line that is no card ({error}); {_WRITE}") from None


def context_of(record: dict[str, Any]) -> Context:
    """A context from its record in a file."""
    return Context(
        peak=float(record["peak"]),
        at=int(record["at"]),
        tokens=tuple(map(str, record["tokens"])),
        levels=tuple(map(int, record["levels"])),
    )
