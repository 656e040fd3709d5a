"""Cards at hand one by one: the file of cards is unpacked once, because its packed form can only be read in order."""

from __future__ import annotations

import json
import os
import tempfile
import weakref
from collections.abc import Iterable
from pathlib import Path

from monitor.dictionary.cards.card_file import FILE, FeatureCard, card_of, opened_lines
from monitor.errors import DictionaryError, NotFound


class CardIndex:
    """All cards of a dictionary, in a file without a name that ends with this object. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Unpack the cards of a folder. Raises DictionaryError where there are none or the file is broken."""
        self.header, lines = opened_lines(folder)
        self._places: list[tuple[int, int]] = []
        self._texts: list[str] = []
        self.promoted: list[tuple[str, ...]] = []
        """For each feature the tokens that it promotes most, strongest first."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the index)
        weakref.finalize(self, self._file.close)
        try:
            self._unpack(lines)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def card(self, feature: int) -> FeatureCard:
        """One feature's card. Raises NotFound for a feature that does not exist."""
        if not 0 <= feature < len(self._places):
            raise NotFound(
                f"feature {feature} does not exist; there are cards of 0 to {len(self._places) - 1}"
            )
        place, size = self._places[feature]
        return card_of(os.pread(self._file.fileno(), size, place).decode())

    def with_text(self, words: str) -> Iterable[int]:
        """Features in whose contexts or promoted tokens these words stand, in any case of letters."""
        wanted = words.lower()
        return (feature for feature, text in enumerate(self._texts) if wanted in text)

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _unpack(self, lines: Iterable[str]) -> None:
        place = 0
        for line in lines:
            raw = line.encode()
            self._file.write(raw)
            self._places.append((place, len(raw)))
            place += len(raw)
            self._note(line)
        self._file.flush()

    def _note(self, line: str) -> None:
        try:
            record = json.loads(line)
            said = tuple(str(text) for text, _ in record["promoted"])
            contexts = ["".join(map(str, context["tokens"])) for context in record["contexts"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DictionaryError(f"{FILE} holds a line that is no card ({error})") from None
        self._texts.append("\n".join((*contexts, *said)).lower())
        self.promoted.append(said)
