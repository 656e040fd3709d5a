"""The rows of one fit: own examples, benign texts and extra texts, with labels and readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.files.examples import Example, Label
from monitor.policy.fit.readings import FitReader, Floats, Indices, TextReadings, join_texts

BENIGN_IMPORTANCE = 1.0
EXTRA_IMPORTANCE = 0.5
"""An extra text counts half as much as an own example or a benign text."""


@dataclass(frozen=True)
class LabelledTexts:
    """Extra texts to learn from, beside a policy's own examples. All three sequences are equally long."""

    texts: Sequence[str] = ()
    positive: Sequence[bool] = ()
    """True where the text shows the concept."""
    groups: Sequence[str] = ()
    """Texts of one group are variants of each other."""


@dataclass(frozen=True)
class ReadTexts:
    """Texts with their readings."""

    texts: Sequence[str]
    read: TextReadings


@dataclass(frozen=True)
class FitRows:
    """All texts of one fit, in one order. Every array is `[texts]`."""

    texts: Sequence[str]
    read: TextReadings
    positive: Indices
    """1 where the text shows the concept, else 0."""
    groups: Indices
    """An integer per group; cross-validation never splits a group."""
    measured: Indices
    """1 where cross-validation scores the row (own examples and benign texts), 0 for extra texts."""
    own: Indices
    """1 for the policy's own examples."""
    hard: Indices
    """1 for hard negatives: benign look-alikes among the own examples."""
    importance: Floats
    """The row's weight in every loss."""

    @property
    def benign(self) -> Indices:
        """Indices of the benign texts."""
        return np.flatnonzero((self.own == 0) & (self.measured == 1))

    @property
    def own_positive(self) -> Indices:
        """Indices of the own positive examples."""
        return np.flatnonzero((self.own == 1) & (self.positive == 1))

    @property
    def everything(self) -> Indices:
        """Indices of all rows."""
        return np.arange(len(self.texts))


def read_rows(reader: FitReader, own: Sequence[Example], benign: ReadTexts, extra: LabelledTexts) -> FitRows:
    """Read own examples and extra texts; the rows are own, benign and extra texts, in that order."""
    parts = [reader.read([e.text for e in own]), benign.read]
    if len(extra.texts):
        parts.append(reader.read(extra.texts))
    counts = (len(own), len(benign.texts), len(extra.texts))
    names = [f"own {e.group}" for e in own] + [f"benign {i}" for i in range(counts[1])]
    names += [f"extra {g}" for g in extra.groups]
    others = [False] * counts[1]
    return FitRows(
        texts=[*(e.text for e in own), *benign.texts, *extra.texts],
        read=join_texts(parts),
        positive=np.asarray(
            [e.label is Label.POSITIVE for e in own] + others + list(extra.positive), np.intp
        ),
        groups=np.unique(names, return_inverse=True)[1].astype(np.intp),
        measured=np.repeat([1, 1, 0], counts),
        own=np.repeat([1, 0, 0], counts),
        hard=np.asarray([e.label is Label.HARD_NEGATIVE for e in own] + [False] * sum(counts[1:]), np.intp),
        importance=np.repeat([1.0, BENIGN_IMPORTANCE, EXTRA_IMPORTANCE], counts),
    )
