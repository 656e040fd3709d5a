"""The rows of one fit: own examples, benign texts and extra texts, with labels and readings.

Benign texts are negatives like a policy's own. Whatever learns, a detector or a baseline, learns from the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from monitor.policy.files.examples import Example, Label
from monitor.policy.files.occurrences import Document, Kind, one_occurrence, plain
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
    kinds: Sequence[Kind] = ()
    """Where each text occurs; statements where none is given."""


@dataclass(frozen=True)
class ReadTexts:
    """Texts with their readings."""

    texts: Sequence[Document]
    read: TextReadings


@dataclass(frozen=True)
class FitRows:
    """All texts of one fit, in one order, a statement as a prompt and as an answer. Every array is `[texts]`."""

    documents: Sequence[Document]
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
    def own_negative(self) -> Indices:
        """Indices of the own negatives, look-alikes among them."""
        return np.flatnonzero((self.own == 1) & (self.positive == 0))

    @property
    def everything(self) -> Indices:
        """Indices of all rows."""
        return np.arange(len(self.documents))

    @cached_property
    def texts(self) -> Sequence[str]:
        """What is written in each."""
        return [plain(document) for document in self.documents]


def read_rows(reader: FitReader, own: Sequence[Example], benign: ReadTexts, extra: LabelledTexts) -> FitRows:
    """Read own examples and extra texts; the rows are own, benign and extra texts, in that order."""
    turns = reader.takes_turns
    met = [(example, document) for example in own for document in example.occurrences(turns=turns)]
    kinds = extra.kinds or [Kind.STATEMENT] * len(extra.texts)
    others = [one_occurrence(text, kind, turns=turns) for text, kind in zip(extra.texts, kinds, strict=True)]
    parts = [reader.read([document for _, document in met]), benign.read]
    if others:
        parts.append(reader.read(others))
    counts = (len(met), len(benign.texts), len(others))
    names = [f"own {e.group}" for e, _ in met] + [f"benign {i}" for i in range(counts[1])]
    names += [f"extra {g}" for g in extra.groups]
    calm = [False] * counts[1]
    return FitRows(
        documents=[*(document for _, document in met), *benign.texts, *others],
        read=join_texts(parts),
        positive=np.asarray(
            [e.label is Label.POSITIVE for e, _ in met] + calm + list(extra.positive), np.intp
        ),
        groups=np.unique(names, return_inverse=True)[1].astype(np.intp),
        measured=np.repeat([1, 1, 0], counts),
        own=np.repeat([1, 0, 0], counts),
        hard=np.asarray(
            [e.label is Label.HARD_NEGATIVE for e, _ in met] + [False] * sum(counts[1:]), np.intp
        ),
        importance=np.repeat([1.0, BENIGN_IMPORTANCE, EXTRA_IMPORTANCE], counts),
    )
