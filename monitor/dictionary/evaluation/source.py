"""One labelled source: its rows, the half that may be learnt from, and what ties rows together.

Knows how rows are capped and split by group. Does not know files, tokens or detectors.
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
"""Groups of up to so many rows are never cut: pairs, and pairs of pairs."""


@dataclass(frozen=True)
class Row:
    """One labelled text."""

    text: str
    label: bool
    kind: str
    """statement, prompt, response, code or message."""
    group: str
    """Rows of one group share a prompt, a pair or a template."""

    @property
    def reply_start(self) -> int:
        """Where the judged part begins: after the last "Assistant:" of a response, else 0 (characters)."""
        if self.kind != "response" or _REPLY not in self.text:
            return 0
        return self.text.rindex(_REPLY) + len(_REPLY)


@dataclass(frozen=True)
class Source:
    """The rows of one source that are used, both halves."""

    concept: str
    name: str
    rows: tuple[Row, ...]
    train: Bools
    """`[rows]`: may be learnt from; the others are measured on."""
    units: NDArray[np.intp]
    """`[rows]`: rows of one number are kept together in folds and in resampling."""

    @property
    def labels(self) -> Bools:
        """`[rows]`: the concept is there."""
        return np.array([row.label for row in self.rows], bool)


@dataclass(frozen=True)
class Skipped:
    """A source that cannot be measured, and why."""

    concept: str
    name: str
    reason: str


SplitOf = Callable[[str, str, str], str]
"""`split_of(source, group, text)` → "train" or "heldout"; the one that the model's own training used."""


def make_source(
    concept: str,
    name: str,
    rows: Sequence[Row],
    split_of: SplitOf,
    normalised: Callable[[str], str],
    cap: int,
) -> Source | Skipped:
    """The source with `cap` rows at most, chosen by a hash so that every run takes the same.

    Rows to learn from whose normalised text also stands in the measured half are dropped. Skipped where either
    half lacks a class.
    """
    positives = sum(row.label for row in rows)
    if positives in (0, len(rows)):
        which = "positive" if positives else "negative"
        return Skipped(concept, name, f"all {len(rows)} rows are {which}; an AUROC needs both classes")
    one_group = len({row.group for row in rows}) == 1
    keys = [normalised(row.text) if one_group else row.group for row in rows]
    kept = _capped(name, keys, cap)
    train = {i for i in kept if split_of(name, rows[i].group, rows[i].text) == "train"}
    measured = {normalised(rows[i].text) for i in kept if i not in train}
    kept = [i for i in kept if i not in train or normalised(rows[i].text) not in measured]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys[i] for i in kept))}
    source = Source(
        concept,
        name,
        tuple(rows[i] for i in kept),
        np.array([i in train for i in kept], bool),
        np.array([numbers[keys[i]] for i in kept], np.intp),
    )
    return source if _usable(source) else Skipped(concept, name, "fewer than ten rows of a class in one half")


def _capped(name: str, keys: Sequence[str], cap: int) -> list[int]:
    """Indices of about `cap` rows in the order of the file: whole groups, or an equal part of each large one.

    Without the second, a source of 25 large groups would be measured on two of them.
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
    """A place in an order that is as good as random and the same in every run."""
    return hashlib.sha256(f"cap:{name}:{key}".encode()).digest()


def _usable(source: Source) -> bool:
    halves = (source.labels[source.train], source.labels[~source.train])
    return all(min(half.sum(), (~half).sum()) >= 10 for half in halves)
