"""Samples of a corpus for labels: places where each feature fires, at all strengths, and places drawn from the whole.

Top contexts alone would show what a feature does at its strongest only. A label is made from both, and measured on
places of these samples that it was not made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.dictionary.cards.contexts import ActivationBatch, token_windows, windows


@dataclass(frozen=True)
class DrawnPlaces:
    """Places drawn from the whole corpus, and the features that are active at each."""

    ids: Tensor
    """`[places, window]` int32: token ids around each place; `EMPTY` outside of its document."""
    place: Tensor
    """`[entries]`: for each pair of a place and a feature active there, the place's index."""
    feature: Tensor
    """`[entries]`: the feature of each pair."""


class FiringSample:
    """For each feature up to `keep` documents in which it fires, with one place of each.

    A place is drawn with a probability that grows with the activation there (Efraimidis and Spirakis, 2006), so that
    the rare strong ones are among them. Only what is kept is held in memory: no number per feature and token.
    """

    def __init__(
        self,
        features: int,
        *,
        keep: int,
        before: int,
        after: int,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.keep = keep
        self.before = before
        """Index of the drawn token in a window."""
        self.offsets = torch.arange(-before, after + 1, device=device)
        self.feature = torch.empty(0, dtype=torch.int64, device=device)
        """`[kept]`: the feature of each kept place, in ascending order."""
        self.activation = torch.empty(0, device=device)
        """`[kept]`: its activation there."""
        self.document = torch.empty(0, dtype=torch.int64, device=device)
        self.ids = torch.empty(0, before + 1 + after, dtype=torch.int32, device=device)
        """`[kept, window]`: token ids around each kept place; `EMPTY` outside of its document."""
        self.levels = torch.empty(0, before + 1 + after, device=device)
        """`[kept, window]`: the feature's activation at each token of the window."""
        self._key = torch.empty(0, device=device)
        self._least = torch.full((features,), -torch.inf, device=device)
        self._random = torch.Generator(device=device).manual_seed(seed)

    def update(self, batch: ActivationBatch) -> None:
        """Add a batch of tokens, which must follow the last one in the corpus."""
        position, feature = batch.activations.nonzero(as_tuple=True)
        activation = batch.activations[position, feature]
        drawn = torch.rand(len(position), generator=self._random, device=position.device)
        key = drawn.clamp(min=1e-30).log() / activation
        chance = key > self._least[feature]
        position, feature, activation, key = (
            position[chance],
            feature[chance],
            activation[chance],
            key[chance],
        )
        document = batch.documents[position]
        held = len(self._key)
        all_feature = torch.cat([self.feature, feature])
        all_key = torch.cat([self._key, key])
        kept = _best(all_feature, torch.cat([self.document, document]), all_key, self.keep)
        old, new = kept[kept < held], kept[kept >= held] - held
        ids, levels = windows(batch, position[new], feature[new], self.offsets)
        order = torch.cat([self.feature[old], feature[new]]).argsort(stable=True)
        self.feature = torch.cat([self.feature[old], feature[new]])[order]
        self.activation = torch.cat([self.activation[old], activation[new]])[order]
        self.document = torch.cat([self.document[old], document[new]])[order]
        self.ids = torch.cat([self.ids[old], ids])[order]
        self.levels = torch.cat([self.levels[old], levels])[order]
        self._key = torch.cat([self._key[old], key[new]])[order]
        self._set_least()

    def of(self, feature: int) -> slice:
        """Where a feature's kept places are."""
        edges = torch.tensor([feature, feature + 1], device=self.feature.device)
        first, last = torch.searchsorted(self.feature, edges).tolist()
        return slice(first, last)

    def _set_least(self) -> None:
        """The key that a further place must exceed: of features with `keep` places, the least of theirs."""
        features = len(self._least)
        full = torch.bincount(self.feature, minlength=features) >= self.keep
        least = torch.full_like(self._least, torch.inf).scatter_reduce(0, self.feature, self._key, "amin")
        self._least = torch.where(full, least, -torch.inf)


class PlaceSample:
    """Up to `keep` places of the corpus, each counted token with the same probability."""

    def __init__(
        self, *, keep: int, before: int, after: int, device: torch.device | str = "cpu", seed: int = 0
    ) -> None:
        self.keep = keep
        self.offsets = torch.arange(-before, after + 1, device=device)
        self._key = torch.empty(0, device=device)
        self._ids = torch.empty(0, before + 1 + after, dtype=torch.int32, device=device)
        self._active: list[Tensor] = []
        self._random = torch.Generator(device=device).manual_seed(seed)

    def update(self, batch: ActivationBatch, counted: Tensor) -> None:
        """Add a batch of tokens; `counted` `[n]` says which of them may be drawn."""
        position = counted.nonzero()[:, 0]
        key = torch.rand(len(position), generator=self._random, device=position.device)
        held = len(self._key)
        kept = torch.cat([self._key, key]).topk(min(self.keep, held + len(key))).indices.sort().values
        old, new = kept[kept < held], kept[kept >= held] - held
        ids, _ = token_windows(batch, position[new], self.offsets)
        active = [batch.activations[at].nonzero()[:, 0] for at in position[new].tolist()]
        self._active = [self._active[at] for at in old.tolist()] + active
        self._ids = torch.cat([self._ids[old], ids])
        self._key = torch.cat([self._key[old], key[new]])

    @property
    def places(self) -> DrawnPlaces:
        """What was drawn, in the order of the corpus."""
        counts = torch.tensor([len(active) for active in self._active], dtype=torch.int64)
        return DrawnPlaces(
            self._ids.cpu(),
            torch.arange(len(counts)).repeat_interleave(counts),
            torch.cat([active.cpu() for active in self._active])
            if self._active
            else torch.empty(0, dtype=torch.int64),
        )


def _best(feature: Tensor, document: Tensor, key: Tensor, keep: int) -> Tensor:
    """Indices of the entries to keep: of each feature and document the one with the highest key, then the best."""
    order = key.argsort(descending=True, stable=True)
    order = order[document[order].argsort(stable=True)]
    order = order[feature[order].argsort(stable=True)]
    first = torch.ones_like(order, dtype=torch.bool)
    first[1:] = (feature[order][1:] != feature[order][:-1]) | (document[order][1:] != document[order][:-1])
    order = order[first]
    order = order[key[order].argsort(descending=True, stable=True)]
    order = order[feature[order].argsort(stable=True)]
    ordered = feature[order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return order[rank < keep].sort().values
