"""The rows of one fit: own examples, benign texts and extra rows, read and put side by side.

Knows what each kind of row counts for. Does not know what is learnt from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.files.examples import Example, Label
from monitor.policy.fit.detectors import Rows
from monitor.policy.fit.readings import Reader, TextReadings, join_texts

BENIGN_IMPORTANCE = 1.0
EXTRA_IMPORTANCE = 0.5


@dataclass(frozen=True)
class LabelledTexts:
    """Further rows to learn from: text, whether the concept is there, and what ties rows together."""

    texts: Sequence[str] = ()
    positive: Sequence[bool] = ()
    groups: Sequence[str] = ()


@dataclass(frozen=True)
class ReadTexts:
    """Texts with what was read of them."""

    texts: Sequence[str]
    read: TextReadings


def assemble(reader: Reader, own: Sequence[Example], benign: ReadTexts, extra: LabelledTexts) -> Rows:
    """Own, benign and extra texts, in that order."""
    parts = [reader.read([e.text for e in own]), benign.read]
    if len(extra.texts):
        parts.append(reader.read(extra.texts))
    counts = (len(own), len(benign.texts), len(extra.texts))
    names = [f"own {e.group}" for e in own] + [f"benign {i}" for i in range(counts[1])]
    names += [f"extra {g}" for g in extra.groups]
    others = [False] * counts[1]
    return Rows(
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
