"""Scores of a policy's rules on the texts that it was calibrated on, as read now and as recorded in its lock.

The texts are the policy's examples and benign ones. The scores are the highest pooled score of each text within each
range of lengths, from which follow whether a rule fires, and how well it separates.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitor.policy.files.examples import Label
from monitor.policy.files.lock import LockedReference, LockModel
from monitor.policy.files.occurrences import Document
from monitor.policy.files.source import Source
from monitor.policy.fit.lengths import EDGES, BucketMaxima
from monitor.policy.fit.readings import FitReader, Floats, Indices, TextReadings, join_texts
from monitor.policy.fit.rule_scorers import locked_leaves
from monitor.policy.fit.thresholds import Leaf

if TYPE_CHECKING:
    from monitor.lab.pair import Pair

Keys = NDArray[np.uint32]
RECORDED = 600
"""Benign texts whose scores are recorded in a lock, at most. They take up ten bytes each and rule."""


@dataclass(frozen=True)
class CalibrationTexts:
    """The texts that one policy is rechecked on: its examples, then benign texts. Every array is `[texts]`."""

    texts: Sequence[Document]
    """As the model meets them: a statement twice, as a request and as an answer."""
    positive: Indices
    """1 where the text shows the concept, else 0."""
    own: Indices
    """1 for the policy's examples, 0 for benign texts."""
    hard: Indices
    """1 for hard negatives."""
    groups: Indices
    """An integer per group; texts of one group are no independent evidence."""
    beside: Indices
    """1 for texts that lie beside the policy, which every later recheck has too."""

    @cached_property
    def keys(self) -> Keys:
        """The beginning of each text's SHA-256."""
        found = [hashlib.sha256(_bytes(text)).digest()[:4] for text in self.texts]
        return np.frombuffer(b"".join(found), "<u4")

    @property
    def positives(self) -> Indices:
        """Rows of the positive examples."""
        return np.flatnonzero((self.own == 1) & (self.positive == 1))

    @property
    def benign(self) -> Indices:
        """Rows of the benign texts."""
        return np.flatnonzero(self.own == 0)

    @property
    def recorded(self) -> Indices:
        """Rows that a lock records: the examples, and of the benign texts beside the policy as good as random ones."""
        benign = np.flatnonzero((self.own == 0) & (self.beside == 1))
        chosen = benign[np.argsort(self.keys[benign], kind="stable")[:RECORDED]]
        return np.sort(np.concatenate([np.flatnonzero(self.own == 1), chosen]))


def calibration_texts(
    source: Source, beside: Sequence[Document], further: Sequence[Document] = (), *, turns: bool = False
) -> CalibrationTexts:
    """The texts of a policy; `beside` are the benign ones of its folder, and `further` are more of these.

    `turns`: whether the model has a chat template, so that the examples occur as turns.
    """
    own = [(example, met) for example in source.examples for met in example.occurrences(turns=turns)]
    known = {_bytes(text) for text in beside}
    further = list({key: text for text in further if (key := _bytes(text)) not in known}.values())
    counts = (len(own), len(beside), len(further))
    names = [f"own {e.group}" for e, _ in own] + [f"benign {i}" for i in range(sum(counts[1:]))]
    rest = [0] * sum(counts[1:])
    return CalibrationTexts(
        texts=[*(met for _, met in own), *beside, *further],
        positive=np.asarray([int(e.label is Label.POSITIVE) for e, _ in own] + rest, np.intp),
        own=np.repeat([1, 0, 0], counts),
        hard=np.asarray([int(e.label is Label.HARD_NEGATIVE) for e, _ in own] + rest, np.intp),
        groups=np.unique(names, return_inverse=True)[1].astype(np.intp),
        beside=np.repeat([1, 1, 0], counts),
    )


def _bytes(document: Document) -> bytes:
    """What a text is known by."""
    return (document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)).encode()


@dataclass(frozen=True)
class LeafScores:
    """What the rules and conditions of one policy score on texts."""

    dtype: str
    """Number type in which the model ran."""
    keys: Keys
    """`[texts]`: by what each text is known again."""
    best: dict[Leaf, Floats]
    """By rule or condition, `[texts, ranges]`: the highest pooled score in each range of lengths (`BucketMaxima`)."""
    edges: tuple[int, ...] = EDGES

    def of(self, leaf: Leaf) -> BucketMaxima:
        """The scores of one rule or condition."""
        return BucketMaxima(self.best[leaf], self.edges)

    def rows(self, keys: Keys) -> Indices:
        """`[texts]`: the row here of each text, -1 for one that was not scored."""
        place = {int(key): row for row, key in enumerate(self.keys)}
        return np.asarray([place.get(int(key), -1) for key in keys], np.intp)


def score_leaves(
    reader: FitReader, source: Source, texts: CalibrationTexts, benign: TextReadings, dtype: str
) -> LeafScores:
    """Score texts by a policy's lock; `benign` are the readings of the benign ones among them, in their order."""
    assert source.lock is not None
    own = [texts.texts[int(i)] for i in np.flatnonzero(texts.own == 1)]
    read = join_texts(
        [part for part in (reader.read(own) if own else None, benign) if part is not None and len(part)]
    )
    scorers = locked_leaves(source.model, source.lock, source.probe_folder)
    best = {leaf: scorer.bucket_maxima(read).best for leaf, scorer in scorers.items()}
    return LeafScores(dtype, texts.keys, best)


def recorded(scores: LeafScores, rows: Indices) -> LockedReference:
    """Scores of some texts as a lock holds them."""
    sections: dict[str, dict[str, str]] = {"rules": {}, "conditions": {}}
    for (section, name), best in scores.best.items():
        sections[section][name] = _text(zlib.compress(best[rows].astype("<f4").tobytes(), 9))
    return LockedReference(
        dtype=scores.dtype,
        edges=list(scores.edges),
        texts=_text(scores.keys[rows].astype("<u4").tobytes()),
        rules=sections["rules"],
        conditions=sections["conditions"],
    )


def number_type(pair: Pair) -> str:
    """Number type in which a pair's model runs, such as `float32`."""
    return str(pair.loaded.dtype).removeprefix("torch.")


def reference_of(
    reader: FitReader, source: Source, beside: Sequence[Document], read: TextReadings, dtype: str
) -> LockedReference | None:
    """What a new lock records: the scores of the reader's pair, to which the lock of `source` was just fitted.

    `beside` are the benign texts of its folder and `read` their readings. None where there is no text at all.
    """
    texts = calibration_texts(source, beside, turns=reader.takes_turns)
    if not len(texts.texts):
        return None
    return recorded(score_leaves(reader, source, texts, read, dtype), texts.recorded)


def from_lock(lock: LockModel) -> LeafScores | None:
    """The scores that a lock holds.

    None where it holds none that can be used: they are damaged, or of other ranges of lengths than are used now.
    """
    held = lock.reference
    if held is None or tuple(held.edges) != EDGES:
        return None
    try:
        keys = np.frombuffer(base64.b64decode(held.texts), "<u4")
        best = {
            (section, name): np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<f4")
            .astype(np.float64)
            .reshape(len(keys), len(EDGES) + 1)
            for section, part in (("rules", held.rules), ("conditions", held.conditions))
            for name, packed in part.items()
        }
    except (ValueError, binascii.Error, zlib.error):
        return None
    return LeafScores(held.dtype, keys, best, tuple(held.edges))


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
