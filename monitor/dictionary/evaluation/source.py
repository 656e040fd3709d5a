"""A labelled source, which is a data set for one concept: its texts, and their split into training and held-out rows.

Texts that have something in common, such as a prompt, form a group; groups are never split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
_REPLY = "Assistant:"
_WHOLE = 4
"""Groups of up to this many rows are kept or dropped as a whole; these are pairs, and pairs of pairs."""


@dataclass(frozen=True)
class SourceText:
    """One labelled text."""

    text: str
    label: bool
    """True where the concept is present."""
    kind: str
    """statement, prompt, response, code or message."""
    group: str
    """Name of its group. Texts of one group have a prompt, a pair or a template in common."""

    @property
    def reply_start(self) -> int:
        """Index of the first judged character: after the last "Assistant:" in a response, 0 in every other kind."""
        if self.kind != "response" or _REPLY not in self.text:
            return 0
        return self.text.rindex(_REPLY) + len(_REPLY)


@dataclass(frozen=True)
class LabelledSource:
    """The texts of one source that are used, for training and held out."""

    concept: str
    name: str
    rows: tuple[SourceText, ...]
    train: Bools
    """`[rows]`: True for training rows; the other rows are held out."""
    units: NDArray[np.intp]
    """`[rows]`: number of each row's group. Groups are kept whole in cross-validation and in resampling."""

    @property
    def labels(self) -> Bools:
        """`[rows]`: True where the concept is present."""
        return np.array([row.label for row in self.rows], bool)


@dataclass(frozen=True)
class SkippedSource:
    """A source that cannot be evaluated, and the reason."""

    concept: str
    name: str
    reason: str


SplitOf = Callable[[str, str, str], str]
"""`split_of(source, group, text)` is "train" or "heldout". It should agree with the split of the model's training."""


def make_source(
    concept: str,
    name: str,
    rows: Sequence[SourceText],
    split_of: SplitOf,
    normalised: Callable[[str], str],
    cap: int,
) -> LabelledSource | SkippedSource:
    """Make a source of at most `cap` rows, which are chosen by a hash, so that every run chooses the same.

    A training row whose text, after `normalised`, also occurs among the held-out rows is dropped. The result is a
    `SkippedSource` where training or held-out rows have fewer than ten of either class.
    """
    positives = sum(row.label for row in rows)
    if positives in (0, len(rows)):
        which = "positive" if positives else "negative"
        return SkippedSource(concept, name, f"all {len(rows)} rows are {which}; an AUROC needs both classes")
    one_group = len({row.group for row in rows}) == 1
    keys = [normalised(row.text) if one_group else row.group for row in rows]
    kept = _capped(name, keys, cap)
    train = {i for i in kept if split_of(name, rows[i].group, rows[i].text) == "train"}
    measured = {normalised(rows[i].text) for i in kept if i not in train}
    kept = [i for i in kept if i not in train or normalised(rows[i].text) not in measured]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys[i] for i in kept))}
    source = LabelledSource(
        concept,
        name,
        tuple(rows[i] for i in kept),
        np.array([i in train for i in kept], bool),
        np.array([numbers[keys[i]] for i in kept], np.intp),
    )
    return (
        source
        if _usable(source)
        else SkippedSource(concept, name, "fewer than ten rows of a class in one half")
    )


def _capped(name: str, keys: Sequence[str], cap: int) -> list[int]:
    """Indices of at most `cap` rows in the order of the file.

    Small groups are taken whole and large groups in equal parts. If large groups were taken whole too, a source of 25
    large groups would be measured on two of them.
    """
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    share = max(_WHOLE, -(-cap // len(groups)))
    kept: list[int] = []
    for key in sorted(groups, key=lambda key: _drawn(name, key)):
        rows = groups[key]
        if len(rows) > share:
            rows = sorted(rows, key=lambda row: _drawn(name, f"{key}:{row}"))[:share]
        if len(kept) + len(rows) <= cap:
            kept.extend(rows)
    return sorted(kept)


def _drawn(name: str, key: str) -> bytes:
    """A sort key that gives the same pseudo-random order in every run."""
    return hashlib.sha256(f"cap:{name}:{key}".encode()).digest()


def _usable(source: LabelledSource) -> bool:
    halves = (source.labels[source.train], source.labels[~source.train])
    return all(min(half.sum(), (~half).sum()) >= 10 for half in halves)
