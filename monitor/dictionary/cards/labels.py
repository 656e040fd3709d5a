"""Labels of features and their file, `labels.json`. A label that a person wrote precedes an automatic one."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from monitor.errors import DictionaryError

FILE = "labels.json"
_FORMAT = "sae-monitor.labels.v1"
_CHANCE = 0.05
"""A label is above chance where chance would give as many places with less than this probability."""
_LEAST = 0.55
"""The AUROC, of all or of strong activations, that it needs besides."""


@dataclass(frozen=True)
class LabelScore:
    """How well a label predicts where its feature fires, on places that it was not made from."""

    auroc: float
    """Probability that a place where the feature fires fits the label better than one where it does not."""
    strong: float | None
    """The same for places with at least half of the feature's maximum; None where there are none."""
    accuracy: float
    """Balanced accuracy: the mean of the shares of both kinds of places that the label is right about."""
    firing: int
    """Number of places where the feature fires."""
    strongly: int
    """Number of these with at least half of its maximum."""
    silent: int
    """Number of places where it does not fire."""
    right: int
    """Number of places where the feature fires and the label says so."""
    common: float
    """Share of all places of the corpus at which the label says that the feature fires."""

    @property
    def above_chance(self) -> bool:
        """True where the label finds more places at which the feature fires than it would find anywhere."""
        if max(self.auroc, self.strong or 0.0) < _LEAST:
            return False
        return _at_least(self.right, self.firing, self.common) < _CHANCE


def _at_least(right: int, of: int, share: float) -> float:
    """The probability of so many places or more, where each is right with the probability `share`."""
    return sum(math.comb(of, n) * share**n * (1 - share) ** (of - n) for n in range(right, of + 1))


@dataclass(frozen=True)
class Labels:
    """The labels of a dictionary by feature index. Immutable: `with_hand` and `with_auto` return changed copies."""

    hand: Mapping[int, str] = field(default_factory=dict)
    """Labels that a person wrote."""
    auto: Mapping[int, str] = field(default_factory=dict)
    """Automatic labels."""
    dictionary_digest: str = ""
    """Digest of the dictionary; empty where it was not recorded."""
    scores: Mapping[int, LabelScore] = field(default_factory=dict)
    """How well automatic labels predict; features without places to try a label on are missing."""
    guesses: Mapping[int, str] = field(default_factory=dict)
    """Of features whose automatic label is `unclear`, the label that was tried."""

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

    def with_auto(
        self,
        labels: Mapping[int, str],
        scores: Mapping[int, LabelScore] | None = None,
        guesses: Mapping[int, str] | None = None,
    ) -> Labels:
        """A copy with these automatic labels, their scores and guesses in place of the earlier ones."""
        return replace(self, auto=dict(labels), scores=dict(scores or {}), guesses=dict(guesses or {}))


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
            _by_feature(record["hand"]),
            _by_feature(record["auto"]),
            str(record["dictionary_digest"]),
            {int(feature): _score(numbers) for feature, numbers in record.get("scores", {}).items()},
            _by_feature(record.get("guesses", {})),
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
    if labels.guesses:
        record["guesses"] = _by_text(labels.guesses)
    draft = path.with_suffix(".json.part")
    draft.write_text(
        _with_scores(json.dumps(record, ensure_ascii=False, indent=1), labels.scores), encoding="utf-8"
    )
    os.replace(draft, path)
    return path


def _with_scores(record: str, scores: Mapping[int, LabelScore]) -> str:
    """The record with the scores at its end, one line for each: indented they would fill thousands of lines."""
    if not scores:
        return record + "\n"
    rows = (
        f"  {json.dumps(str(feature))}: {json.dumps(_numbers(scores[feature]))}" for feature in sorted(scores)
    )
    return record.removesuffix("\n}") + ',\n "scores": {\n' + ",\n".join(rows) + "\n }\n}\n"


def _numbers(score: LabelScore) -> list[float | int | None]:
    return [None if value is None else round(value, 5) for value in astuple(score)]


def _score(numbers: list[float]) -> LabelScore:
    auroc, strong, accuracy, firing, strongly, silent, right, common = numbers
    return LabelScore(
        float(auroc),
        None if strong is None else float(strong),
        float(accuracy),
        int(firing),
        int(strongly),
        int(silent),
        int(right),
        float(common),
    )


def _by_feature(record: Mapping[str, str]) -> dict[int, str]:
    return {int(feature): str(label) for feature, label in record.items()}


def _by_text(labels: Mapping[int, str]) -> dict[str, str]:
    return {str(feature): labels[feature] for feature in sorted(labels)}
