"""What is known of the features of a dictionary, at hand while a server runs: names, numbers, cards, search, a map.

Labels that a person writes here are kept in a folder of their own. What lies beside the dictionary stays as it is.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from monitor.dictionary.bundle import Dictionary
from monitor.dictionary.cards import labels as labelling
from monitor.dictionary.cards.card_file import FeatureCard
from monitor.dictionary.cards.card_index import CardIndex
from monitor.dictionary.cards.labels import Labels
from monitor.errors import DictionaryError, InputError, NotFound
from monitor.lab.pair import need_feature, need_statistics, open_labels

LONGEST_LABEL = 200
_PROMOTED = 6


@dataclass(frozen=True, slots=True)
class FeatureBrief:
    """A feature in a line."""

    feature: int
    label: str
    by_hand: bool
    """Whether a person wrote the label."""
    auroc: float | None
    """How well an automatic label predicts where the feature fires; None where nobody tried."""
    maximum: float
    """Its recorded maximum, the unit of its readings; 0 where it never fired."""
    density: float
    """Share of the corpus's tokens at which it is active."""
    promoted: tuple[str, ...]
    """The tokens that it promotes most; empty without cards."""


@dataclass(frozen=True)
class MapPoint:
    """A feature on the map of a feature's neighbours."""

    brief: FeatureBrief
    cosine: float
    """Of its decoder row with that of the feature in the middle."""
    x: float
    """In the plane, from 0 to 1."""
    y: float


class FeatureBook:
    """The features of one dictionary. Threads may share it."""

    def __init__(self, dictionary: Dictionary, own_labels: Path | None = None) -> None:
        """`own_labels` is the folder in which labels of this server's people are kept; None where none are."""
        self.dictionary = dictionary
        self._own, self._lock = own_labels, threading.Lock()
        self._labels: Labels | None = None

    @property
    def labels(self) -> Labels:
        """The labels beside the dictionary, and above them those of this server's people."""
        with self._lock:
            if self._labels is None:
                self._labels = self._merged(self._written())
            return self._labels

    @cached_property
    def cards(self) -> CardIndex | None:
        """The cards; None where the dictionary has none, or those of another. Takes seconds at first use."""
        try:
            index = CardIndex(self.dictionary.path)
        except DictionaryError:
            return None
        if index.header.dictionary_digest != self.dictionary.digest:
            index.close()
            return None
        return index

    def brief(self, feature: int) -> FeatureBrief:
        """One feature in a line. Raises NotFound where the dictionary does not have it."""
        need_feature(self.dictionary, feature)
        statistics, labels, cards = need_statistics(self.dictionary), self.labels, self.cards
        score = labels.scores.get(feature)
        by_hand = labels.by_hand(feature)
        return FeatureBrief(
            feature,
            labels.best(feature),
            by_hand,
            None if score is None or by_hand else score.auroc,
            float(statistics.maximum[feature]),
            float(statistics.density[feature]),
            cards.promoted[feature][:_PROMOTED] if cards is not None else (),
        )

    def briefs(self, features: Iterable[int]) -> list[FeatureBrief]:
        """Several, in their order."""
        return [self.brief(feature) for feature in features]

    def find(self, words: str, limit: int) -> list[FeatureBrief]:
        """Features by number, label, and what stands in their contexts, best first.

        A number comes first, then labels that are these words, that begin with them, that hold them, then contexts and
        promoted tokens. Among equals the rarer feature comes first.
        """
        wanted = words.strip().lower()
        if not wanted:
            return []
        count, labels = self.dictionary.autoencoder.features, self.labels
        ranks: dict[int, int] = {}
        if wanted.isdecimal() and int(wanted) < count:
            ranks[int(wanted)] = 0
        for feature in range(count):
            label = labels.best(feature).lower()
            if wanted in label:
                at = 1 if label == wanted else 2 if label.startswith(wanted) else 3
                ranks.setdefault(feature, at)
        for feature in self.cards.with_text(wanted) if self.cards is not None else ():
            ranks.setdefault(feature, 4)
        density = need_statistics(self.dictionary).density
        best = sorted(ranks, key=lambda f: (ranks[f], float(density[f]), f))
        return self.briefs(best[:limit])

    def card(self, feature: int) -> FeatureCard | None:
        """Where it fires and what it promotes; None without cards. Raises NotFound."""
        need_feature(self.dictionary, feature)
        return self.cards.card(feature) if self.cards is not None else None

    def neighbours(self, feature: int, size: int) -> list[MapPoint]:
        """The map around a feature: itself, then its nearest features. Raises NotFound."""
        from monitor.dictionary.explore.feature_map import neighbourhood

        need_feature(self.dictionary, feature)
        size = min(size, self.dictionary.autoencoder.features - 1)
        around = neighbourhood(self.dictionary.autoencoder.decoder, feature, size)
        low, high = around.positions.min(axis=0), around.positions.max(axis=0)
        places = (around.positions - low) / (high - low).clip(min=1e-9)
        return [
            MapPoint(self.brief(other), float(cosine), float(x), float(y))
            for other, cosine, (x, y) in zip(around.features, around.cosines, places, strict=True)
        ]

    def rename(self, feature: int, text: str) -> FeatureBrief:
        """Give a feature a label of this server's people; an empty one takes theirs away. Blocks.

        Raises NotFound, and InputError where nothing can be kept or the label is no line of text.
        """
        need_feature(self.dictionary, feature)
        if self._own is None:
            raise InputError("nothing can be saved here: the operator has set no page_overlay")
        label = " ".join(text.split())
        if len(label) > LONGEST_LABEL or not label.isprintable():
            raise InputError(f"a label is one line of at most {LONGEST_LABEL} characters")
        with self._lock:
            own = self._written().with_hand(feature, label)
            labelling.save(self._own, replace(own, dictionary_digest=self.dictionary.digest))
            self._labels = self._merged(own)
        return self.brief(feature)

    def _written(self) -> Labels:
        if self._own is None:
            return Labels(dictionary_digest=self.dictionary.digest)
        return labelling.load(self._own, self.dictionary.digest)

    def _merged(self, own: Labels) -> Labels:
        shipped = open_labels(self.dictionary)
        return replace(shipped, hand={**shipped.hand, **own.hand})


def counted_by(policies: Sequence[Any], feature: int) -> list[dict[str, Any]]:
    """What policies do with a feature: which rules read it, or are explained by it, and which policies clamp it."""
    found: list[dict[str, Any]] = []
    for policy in policies:
        for check in (*policy.rules, *policy.conditions):
            for how, features in (("reads", check.features), ("explains", check.explains)):
                found += [
                    {"policy": policy.name, "rule": check.name, "how": how, "weight": one.weight}
                    for one in features
                    if one.index == feature
                ]
        found += [
            {"policy": policy.name, "rule": "", "how": "clamps", "weight": clamp.target}
            for clamp in policy.clamps
            if clamp.feature == feature
        ]
    return found


def need_book(book: FeatureBook | None) -> FeatureBook:
    """The book itself; NotFound where the engine shows only what policies watch."""
    if book is None:
        raise NotFound("this engine shows the features that policies watch, and no others")
    return book
