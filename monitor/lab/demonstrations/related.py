"""What stands around a feature: its neighbours by the cosine of decoder rows, and what prompts of one kind share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from monitor.dictionary.explore.search import search
from monitor.lab.cost.points import Share, share
from monitor.lab.demonstrations.choice import Contrast
from monitor.lab.demonstrations.demonstration import Demonstration
from monitor.lab.features import nearest_features
from monitor.lab.pair import Pair, need_statistics, open_labels

NEAREST = 5
RELATED = 0.65
"""AUROC on the demonstration's texts from which on a feature is about the same."""
RANDOM = 400
"""Features that are drawn to compare neighbours with."""
PAIRS = 20
"""Pairs of prompts that are drawn to find what they have in common."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A feature whose decoder row points almost as another's."""

    feature: int
    label: str
    cosine: float
    auroc: float
    """On the demonstration's texts."""

    @property
    def related(self) -> bool:
        """Whether it separates the demonstration's texts as well."""
        return self.auroc >= RELATED


@dataclass(frozen=True)
class Neighbours:
    """The nearest features of one."""

    nearest: tuple[Neighbour, ...]
    random: Share
    """Share of features drawn at random that separate the texts as well, for comparison."""

    @property
    def share(self) -> Share:
        """Share of the neighbours that do."""
        return share(np.asarray([one.related for one in self.nearest]))


@dataclass(frozen=True, slots=True)
class Shared:
    """The feature that two prompts have in common most specifically."""

    first: int
    """Numbers of the two texts among those that the demonstration is about."""
    second: int
    feature: int
    label: str
    fires: float
    """Share of the other texts about the same on which it fires."""
    fires_other: float
    """Share of the texts about something else."""

    @property
    def worked(self) -> bool:
        """Whether it stands for what the texts are about: it fires on most of the rest, and half as often elsewhere."""
        return self.fires >= 0.5 and self.fires >= 2 * self.fires_other


@dataclass(frozen=True)
class SharedFeatures:
    """What pairs of prompts of one kind have in common."""

    pairs: tuple[Shared, ...]

    @property
    def share(self) -> Share:
        """Share of the pairs whose common feature stands for what they are about."""
        return share(np.asarray([pair.worked for pair in self.pairs]))


def neighbours(pair: Pair, feature: int, contrast: Contrast, seed: int = 0) -> Neighbours:
    """The nearest features by cosine, and whether they are about the same."""
    labels, area = open_labels(pair.dictionary), contrast.auroc
    nearest = [
        Neighbour(other, labels.best(other), cosine, float(area[other]))
        for other, cosine in nearest_features(pair.dictionary, feature, NEAREST)
    ]
    alive = (need_statistics(pair.dictionary).maximum > 0).nonzero()[:, 0]
    drawn = alive[torch.randperm(len(alive), generator=torch.Generator().manual_seed(seed))[:RANDOM]]
    return Neighbours(tuple(nearest), share((area[drawn] >= RELATED).numpy()))


def shared_features(
    pair: Pair, demonstration: Demonstration, contrast: Contrast, seed: int = 0
) -> SharedFeatures:
    """For pairs of texts drawn with a seed, the feature that fires on both and is rarest elsewhere."""
    labels, statistics = open_labels(pair.dictionary), need_statistics(pair.dictionary)
    fires = contrast.pooled.maximum > 0
    count = len(demonstration.about)
    rng = np.random.default_rng(seed)
    every = [(i, j) for i in range(count) for j in range(i)]
    found = []
    for number in rng.permutation(len(every))[:PAIRS].tolist():
        first, second = every[number]
        hits = search(contrast.pooled.rows([first, second]), statistics, limit=1)
        if not hits:
            found.append(Shared(first, second, -1, "", 0.0, 0.0))
            continue
        feature = hits[0].feature
        rest = [i for i in range(count) if i not in (first, second)]
        found.append(
            Shared(
                first,
                second,
                feature,
                labels.best(feature),
                float(fires[rest, feature].float().mean()),
                float(fires[count:, feature].float().mean()),
            )
        )
    return SharedFeatures(tuple(found))
