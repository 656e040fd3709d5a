"""What each layer tells apart: a linear probe on the mean residual, for every labelled set and layer.

It answers where the tap should stand before a dictionary is trained there. Texts stand where a server meets them:
dialogues as their turns, everything else as the user's turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold
from torch import Tensor

from monitor.dictionary.packed_text import Document
from monitor.dictionary.residual_signals import norm_limit, sinks
from monitor.lab.splits import group_names_source
from monitor.lab.texts import LabelledText, read_labelled
from monitor.model.load.model import LoadedModel
from monitor.model.prompts import DocumentReader
from monitor.policy.fit.late_probe import linear
from monitor.policy.fit.metrics import auroc
from monitor.recipes.smollm2.conversations import turns_of, user
from monitor.recipes.smollm2.layers import residuals_of_layers

FOLDS = 5
LONGEST = 256
"""Tokens of a text that are read."""
TOGETHER = 4096
"""Tokens in one forward pass, padding included."""

Means = NDArray[np.float64]
"""Mean residuals `[texts, d_model]`."""


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Part of one labelled file."""

    name: str
    """`CONCEPT/SOURCE`"""
    rows: tuple[LabelledText, ...]
    groups: NDArray[np.intp]
    """`[texts]`: a number for each group of rows that belong together."""

    @property
    def positive(self) -> NDArray[np.intp]:
        """`[texts]`: 1 where the concept is there."""
        return np.array([bool(row.label) for row in self.rows], dtype=np.intp)


def labelled_sets(data: Path, most: int) -> list[LabelledSet]:
    """At most `most` rows, drawn by their texts, of each labelled file that has both labels and groups enough."""
    found = []
    for path in sorted((data / "labelled").glob("*/*.jsonl")):
        rows = sorted(read_labelled(path), key=lambda row: _draw(row.text))[:most]
        groups = np.unique([_group(path.stem, row) for row in rows], return_inverse=True)[1]
        if len({row.label for row in rows}) > 1 and groups.max() >= FOLDS:
            found.append(LabelledSet(f"{path.parent.name}/{path.stem}", tuple(rows), groups))
    return found


def auroc_by_layer(
    loaded: LoadedModel, layers: Sequence[int], sets: Sequence[LabelledSet]
) -> dict[str, dict[int, float]]:
    """AUROC of the probe for each set and layer, on texts of groups that it had not seen."""
    return {
        part.name: {
            layer: _crossed(means, part)
            for layer, means in zip(layers, _means(loaded, layers, part.rows), strict=True)
        }
        for part in sets
    }


def as_table(found: Mapping[str, Mapping[int, float]]) -> str:
    """The values as a table in markdown, with their mean."""
    layers = list(next(iter(found.values())))
    mean = {layer: float(np.mean([row[layer] for row in found.values()])) for layer in layers}
    head = f"| labelled set | {' | '.join(f'layer {layer}' for layer in layers)} |\n|{'---|' * (len(layers) + 1)}\n"
    return head + "".join(
        f"| {name} | {' | '.join(f'{row[layer]:.3f}' for layer in layers)} |\n"
        for name, row in {**found, "mean": mean}.items()
    )


def _group(name: str, row: LabelledText) -> str:
    return row.text if not row.group or group_names_source(name, row.group) else row.group


def _draw(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _crossed(means: Means, part: LabelledSet) -> float:
    positive = part.positive
    scores = np.zeros(len(positive))
    for rest, held in GroupKFold(FOLDS).split(means, positive, part.groups):
        weights, bias = linear(means[rest], positive[rest])
        scores[held] = means[held] @ weights + bias
    return auroc(scores[positive == 1], scores[positive == 0])


def _means(loaded: LoadedModel, layers: Sequence[int], rows: Sequence[LabelledText]) -> list[Means]:
    ids = [found[:LONGEST] for found in DocumentReader(loaded)([_placed(row.text) for row in rows])]
    means = np.zeros((len(layers), len(rows), loaded.d_model))
    for which, padded, lengths in _padded(ids):
        for number, x in enumerate(residuals_of_layers(loaded, layers, padded, lengths)):
            means[number, which] = _mean(x.float(), lengths)
    return list(means)


def _placed(text: str) -> Document:
    return turns_of(text) or (user(text),)


def _mean(x: Tensor, lengths: Sequence[int]) -> Means:
    """Mean residuals of rows `[rows, length, d_model]`; padding and attention sinks do not count."""
    at = torch.arange(x.shape[1]).expand(x.shape[:2])
    real = at < torch.tensor(lengths)[:, None]
    counted = real & ~sinks(x, at, norm_limit(x[real], at[real]))
    total = (x * counted[..., None]).sum(1) / counted.sum(1, keepdim=True).clamp_min(1)
    return np.asarray(total.double().numpy())


def _padded(ids: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Tensor, list[int]]]:
    order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
    while order:
        count = max(1, TOGETHER // len(ids[order[-1]]))
        which, order = order[-count:], order[:-count]
        padded = torch.zeros(len(which), len(ids[which[-1]]), dtype=torch.long)
        for row, number in enumerate(which):
            padded[row, : len(ids[number])] = torch.tensor(ids[number])
        yield which, padded, [len(ids[number]) for number in which]
