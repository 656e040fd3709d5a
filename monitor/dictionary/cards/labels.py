"""Labels of features and their file, `labels.json`. A label that a person wrote precedes an automatic one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from monitor.errors import DictionaryError

FILE = "labels.json"
_FORMAT = "sae-monitor.labels.v1"


@dataclass(frozen=True)
class Labels:
    """The labels of a dictionary by feature index. Immutable: `with_hand` and `with_auto` return changed copies."""

    hand: Mapping[int, str] = field(default_factory=dict)
    """Labels that a person wrote."""
    auto: Mapping[int, str] = field(default_factory=dict)
    """Automatic labels."""
    dictionary_digest: str = ""
    """Digest of the dictionary; empty where it was not recorded."""

    def best(self, feature: int) -> str:
        """The feature's hand label, else its automatic label, else an empty text."""
        return self.hand.get(feature) or self.auto.get(feature, "")

    def by_hand(self, feature: int) -> bool:
        """True where a person wrote the label."""
        return feature in self.hand

    def with_hand(self, feature: int, text: str) -> Labels:
        """A copy with this hand label for the feature, or without a hand label where the text is empty."""
        kept = {index: label for index, label in self.hand.items() if index != feature}
        return replace(self, hand=kept | ({feature: text.strip()} if text.strip() else {}))

    def with_auto(self, labels: Mapping[int, str]) -> Labels:
        """A copy with these automatic labels in place of the earlier automatic ones."""
        return replace(self, auto=dict(labels))


def load(folder: Path, dictionary_digest: str) -> Labels:
    """The labels in a dictionary's folder; empty labels where it has no file.

    Raises DictionaryError where the file is malformed or belongs to another dictionary.
    """
    labels = _read(folder / FILE, dictionary_digest)
    if labels.dictionary_digest not in ("", dictionary_digest):
        raise DictionaryError(
            f"{FILE} has labels for another dictionary ({labels.dictionary_digest}); move the file away, and label "
            f"the features of this one"
        )
    return labels


def _read(path: Path, dictionary_digest: str) -> Labels:
    if not path.exists():
        return Labels(dictionary_digest=dictionary_digest)
    try:
        record = json.loads(path.read_text(encoding="utf-8-sig"))
        if record["format"] != _FORMAT:
            raise DictionaryError(
                f"{FILE} has format {record['format']!r}; this version reads {_FORMAT!r}: move it away"
            )
        return Labels(
            _by_feature(record["hand"]), _by_feature(record["auto"]), str(record["dictionary_digest"])
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DictionaryError(
            f'{FILE} is not a labels file ({error}); it must read {{"format": "{_FORMAT}", '
            f'"dictionary_digest": "", "hand": {{"12": "a label"}}, "auto": {{}}}}'
        ) from None


def save(folder: Path, labels: Labels) -> Path:
    """Write the labels to a dictionary's folder, in one atomic step. Returns the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    record = {
        "format": _FORMAT,
        "dictionary_digest": labels.dictionary_digest,
        "hand": _by_text(labels.hand),
        "auto": _by_text(labels.auto),
    }
    draft = path.with_suffix(".json.part")
    draft.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)
    return path


def _by_feature(record: Mapping[str, str]) -> dict[int, str]:
    return {int(feature): str(label) for feature, label in record.items()}


def _by_text(labels: Mapping[int, str]) -> dict[str, str]:
    return {str(feature): labels[feature] for feature in sorted(labels)}
