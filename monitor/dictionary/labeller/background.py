"""How common traits are in a corpus, counted over places that were drawn from it."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from monitor.dictionary.labeller.places import Window
from monitor.dictionary.labeller.traits import Trait, TraitKind, texts_of, topics_of, traits_of
from monitor.dictionary.labeller.word_classes import FUNCTION_WORDS

_PRIOR = 0.5
"""Added to each count: a trait that was not seen is rare, not impossible."""


class Background:
    """Shares of the places of a corpus that have a trait, or two traits together."""

    def __init__(self, windows: Iterable[Window]) -> None:
        """Counts all places of the windows."""
        self.capitals: Counter[str] = Counter()
        """How often each word stands with a capital, by its lower case; sentence starts are not counted."""
        self.lower: Counter[str] = Counter()
        """How often each word stands without one."""
        self._windows = 0
        self._owner = array("I")
        found: defaultdict[Trait, array[int]] = defaultdict(lambda: array("I"))
        near: defaultdict[Trait, array[int]] = defaultdict(lambda: array("I"))
        for window in windows:
            for topic in topics_of(window):
                near[Trait(TraitKind.NEAR, topic)].append(self._windows)
            for place in window.places():
                for trait in (*traits_of(place), *texts_of(place)):
                    found[trait].append(len(self._owner))
                self._count_case(place.word, place.neighbour(-1))
                self._owner.append(self._windows)
            self._windows += 1
        self._of_place = (
            np.frombuffer(self._owner, dtype=np.uint32) if self._owner else np.empty(0, np.uint32)
        )
        self._found = {trait: np.frombuffer(places, dtype=np.uint32) for trait, places in found.items()}
        self._near = {trait: np.frombuffer(held, dtype=np.uint32) for trait, held in near.items()}

    @property
    def places(self) -> int:
        """Number of places that were counted."""
        return len(self._owner)

    def is_proper(self, name: str) -> bool:
        """True for words that stand with a capital where no sentence begins, if they stand there at all."""
        words = name.lower().split()
        return all(
            word not in FUNCTION_WORDS and self.capitals[word] >= 2 * self.lower[word] for word in words
        )

    def share(self, traits: Sequence[Trait]) -> float:
        """Share of the places that have at least one of these traits, all of one kind."""
        if traits[0].kind is TraitKind.NEAR:
            return (len(self._windows_near(traits)) + _PRIOR) / (self._windows + 1)
        return (len(self._places_with(traits)) + _PRIOR) / (self.places + 1)

    def joint_share(self, main: Sequence[Trait], around: Sequence[Trait]) -> float:
        """Share of the places that have one of `main` and one of `around`."""
        places = self._places_with(main)
        if around[0].kind is TraitKind.NEAR:
            both = np.isin(self._of_place[places], self._windows_near(around)).sum()
        else:
            both = len(np.intersect1d(places, self._places_with(around), assume_unique=True))
        return (float(both) + _PRIOR) / (self.places + 1)

    def _count_case(self, word: str, before: str) -> None:
        if word[0].isupper() and before[-1:].isalnum():
            self.capitals[word.lower()] += 1
        elif word[0].islower():
            self.lower[word] += 1

    def _places_with(self, traits: Sequence[Trait]) -> NDArray[np.uint32]:
        return _union([self._found[trait] for trait in traits if trait in self._found])

    def _windows_near(self, traits: Sequence[Trait]) -> NDArray[np.uint32]:
        return _union([self._near[trait] for trait in traits if trait in self._near])


def _union(parts: list[NDArray[np.uint32]]) -> NDArray[np.uint32]:
    if not parts:
        return np.empty(0, np.uint32)
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
