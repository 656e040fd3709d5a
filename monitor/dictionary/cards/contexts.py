"""The strongest contexts of every feature, kept while a corpus streams by.

Knows how to keep, for all features at once, the few places where each fired most, at most one per document. Does
not know where the activations come from or how a context is shown.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = -1
"""Token id of a window position that lies outside its document."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive tokens with the activations of all features."""

    ids: Tensor
    """`[n]` token ids."""
    rows: Tensor
    """`[n]`: which forward row each token was in; windows never cross rows."""
    documents: Tensor
    """`[n]`: which document each token is of; never decreasing."""
    activations: Tensor
    """`[n, features]`; zero where a token must not count."""


class TopContexts:
    """Per feature the `keep` strongest documents, each with a window of tokens around its strongest token."""

    def __init__(
        self, features: int, *, keep: int, before: int, after: int, device: torch.device | str = "cpu"
    ) -> None:
        window = before + 1 + after
        self.before = before
        """Where in a window the strongest token stands."""
        self.offsets = torch.arange(-before, after + 1, device=device)
        self.peaks = torch.zeros(features, keep, device=device)
        """`[features, keep]` activations, strongest first; 0: no context."""
        self.documents = torch.full((features, keep), EMPTY, device=device)
        self.ids = torch.full((features, keep, window), EMPTY, dtype=torch.int32, device=device)
        self.levels = torch.zeros(features, keep, window, device=device)
        """`[features, keep, window]`: the feature's activation at each token of the window."""

    def update(self, stretch: Stretch) -> None:
        """Take in more tokens of the corpus."""
        peaks, places = _peaks_per_document(stretch, self.peaks.shape[1])
        documents = stretch.documents[places]
        self._drop_repeated(peaks, documents)
        keep = self.peaks.shape[1]
        best = torch.cat([self.peaks, peaks], dim=1).topk(keep, dim=1)
        changed = (best.indices >= keep).any(1).nonzero()[:, 0]
        if len(changed):
            self._replace(changed, best.values[changed], best.indices[changed], places, documents, stretch)

    def _drop_repeated(self, peaks: Tensor, documents: Tensor) -> None:
        """Where a document goes on from an earlier stretch, let only its stronger place stand (in place)."""
        same = self.documents[:, :, None] == documents[:, None, :]
        if not bool(same.any()):
            return
        stronger_now = peaks[:, None, :] > self.peaks[:, :, None]
        peaks.masked_fill_((same & ~stronger_now).any(1), -torch.inf)
        weaker_before = (same & stronger_now).any(2)
        self.peaks.masked_fill_(weaker_before, 0.0)
        self.documents.masked_fill_(weaker_before, EMPTY)

    def _replace(
        self,
        changed: Tensor,
        peaks: Tensor,
        chosen: Tensor,
        places: Tensor,
        documents: Tensor,
        stretch: Stretch,
    ) -> None:
        keep = self.peaks.shape[1]
        is_new = chosen >= keep
        old, new = chosen.clamp(max=keep - 1), (chosen - keep).clamp(min=0)
        place = places[changed].gather(1, new)
        window_index = old[:, :, None].expand(-1, -1, self.ids.shape[2])
        ids = self.ids[changed].gather(1, window_index)
        levels = self.levels[changed].gather(1, window_index)
        feature = changed[:, None].expand_as(chosen)[is_new]
        ids[is_new], levels[is_new] = self._windows(stretch, place[is_new], feature)
        self.peaks[changed] = peaks
        self.documents[changed] = torch.where(
            is_new, documents[changed].gather(1, new), self.documents[changed].gather(1, old)
        )
        self.ids[changed], self.levels[changed] = ids, levels

    def _windows(self, stretch: Stretch, places: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids and activations `[m, window]` around `places` `[m]` of `features` `[m]`."""
        around = places[:, None] + self.offsets
        inside = (around >= 0) & (around < len(stretch.ids))
        around = around.clamp(0, len(stretch.ids) - 1)
        for key in (stretch.rows, stretch.documents):
            inside &= key[around] == key[places][:, None]
        ids = stretch.ids[around].masked_fill(~inside, EMPTY).int()
        levels = stretch.activations[around, features[:, None]].masked_fill(~inside, 0.0)
        return ids, levels


def _peaks_per_document(stretch: Stretch, keep: int) -> tuple[Tensor, Tensor]:
    """Per feature the strongest documents of the stretch: peaks (−inf where inactive) and places `[features, k]`."""
    _, counts = torch.unique_consecutive(stretch.documents, return_counts=True)
    peaks, places, start = [], [], 0
    for count in counts.tolist():
        peak, place = stretch.activations[start : start + count].max(0)
        peaks.append(peak)
        places.append(place + start)
        start += count
    best = torch.stack(peaks).topk(min(keep, len(peaks)), dim=0)
    place = torch.stack(places).gather(0, best.indices)
    return best.values.masked_fill(best.values <= 0, -torch.inf).T.contiguous(), place.T.contiguous()
