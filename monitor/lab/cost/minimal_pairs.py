"""Minimal pairs of sentences, such as BLiMP: how often a model finds the grammatical one likelier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monitor import utf8
from monitor.errors import InputError
from monitor.lab.pair import Pair
from monitor.model.offline.steered_model import Edit, SteeredModel, batches

ROW = '{"good": "The cats sleep.", "bad": "The cats sleeps.", "paradigm": "agreement"}'
BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """Two sentences that differ in grammar alone."""

    good: str
    bad: str
    paradigm: str
    """What they differ in."""


def read_pairs(path: Path, each: int) -> list[MinimalPair]:
    """At most `each` pairs of every paradigm of a file of JSON lines, chosen by hashing.

    InputError where the file is not there, or holds no such lines.
    """
    try:
        lines = utf8.decode(path.read_bytes()).splitlines()
    except (OSError, utf8.NotUtf8):
        raise InputError(
            f"{path}: no file of minimal pairs can be read there; a line of one is {ROW}"
        ) from None
    found: dict[str, list[MinimalPair]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            pair = _pair(line, f"{path}:{number}")
            found.setdefault(pair.paradigm, []).append(pair)
    if not found:
        raise InputError(f"{path} holds no minimal pair; a line is {ROW}")
    return [pair for own in found.values() for pair in sorted(own, key=_order)[:each]]


class PairTest:
    """Minimal pairs as one model reads them."""

    def __init__(self, pair: Pair, pairs: Sequence[MinimalPair]) -> None:
        """InputError where one has a sentence of a single token."""
        self._device = pair.loaded.device
        sentences = [text for one in pairs for text in (one.good, one.bad)]
        self._ids = pair.all_ids(sentences, "minimal pairs")
        self._order = sorted(range(len(self._ids)), key=lambda i: len(self._ids[i]))

    def __len__(self) -> int:
        return len(self._ids) // 2

    @torch.no_grad()
    def right(self, steered: SteeredModel, edit: Edit) -> NDArray[np.bool_]:
        """For each pair whether the whole good sentence has the higher log-probability under an edit, `[pairs]`."""
        found = np.zeros(len(self._ids))
        left = list(self._order)
        for ids, real in batches([self._ids[i] for i in left], BATCH_TOKENS):
            logits = steered.read(ids, edit, real.sum(1).tolist()).logits[:, :-1]
            target = ids[:, 1:, None].to(logits.device)
            each = logits.gather(-1, target)[..., 0] - logits.logsumexp(-1)
            mine = left[len(left) - len(ids) :]
            found[mine] = (each * real[:, 1:].to(each.device)).sum(-1, dtype=torch.float64).cpu().numpy()
            del left[len(left) - len(ids) :]
        return np.asarray(found[0::2] > found[1::2])


def _pair(line: str, where: str) -> MinimalPair:
    try:
        row = json.loads(line)
        return MinimalPair(str(row["good"]), str(row["bad"]), str(row.get("paradigm", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{where}: write an object with `good` and `bad`, such as {ROW}") from None


def _order(pair: MinimalPair) -> bytes:
    return hashlib.sha256(f"{pair.good}\n{pair.bad}".encode()).digest()
