"""The strongest contexts of every feature, collected batch by batch in one pass over a corpus.

Each document gives at most one context per feature.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

EMPTY = -1
"""Stands for "none": a window position outside the document, or a context that has not been filled."""


@dataclass(frozen=True)
class ActivationBatch:
    """Consecutive tokens of a corpus with the activations of all features."""

    ids: Tensor
    """`[n]`: token ids."""
    rows: Tensor
    """`[n]`: index of the sequence that each token was run in. A window stays within one sequence."""
    documents: Tensor
    """`[n]`: index of each token's document, never decreasing."""
    activations: Tensor
    """`[n, features]`; zero at tokens that are left out."""


class TopContexts:
    """For each feature the `keep` documents with the highest activations.

    For each of these, it holds the token with the highest activation, `before` tokens before it and `after` after it.
    """

    def __init__(
        self, features: int, *, keep: int, before: int, after: int, device: torch.device | str = "cpu"
    ) -> None:
        window = before + 1 + after
        self.before = before
        """Index of the strongest token in a window."""
        self.offsets = torch.arange(-before, after + 1, device=device)
        """`[window]`: positions of a window relative to its strongest token."""
        self.peaks = torch.zeros(features, keep, device=device)
        """`[features, keep]`: highest activation of each context, strongest first; 0 where there is no context."""
        self.documents = torch.full((features, keep), EMPTY, device=device)
        """`[features, keep]`: index of each context's document."""
        self.ids = torch.full((features, keep, window), EMPTY, dtype=torch.int32, device=device)
        """`[features, keep, window]`: token ids of each context."""
        self.levels = torch.zeros(features, keep, window, device=device)
        """`[features, keep, window]`: the feature's activation at each token of the window."""

    def update(self, batch: ActivationBatch) -> None:
        """Add a batch of tokens, which must follow the last one in the corpus."""
        peaks, positions = _peaks_per_document(batch, self.peaks.shape[1])
        documents = batch.documents[positions]
        self._drop_repeated(peaks, documents)
        keep = self.peaks.shape[1]
        best = torch.cat([self.peaks, peaks], dim=1).topk(keep, dim=1)
        changed = (best.indices >= keep).any(1).nonzero()[:, 0]
        if len(changed):
            self._replace(changed, best.values[changed], best.indices[changed], positions, documents, batch)

    def _drop_repeated(self, peaks: Tensor, documents: Tensor) -> None:
        """Where a document continues from an earlier batch, keep only its stronger context. Changes both in place."""
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
        positions: Tensor,
        documents: Tensor,
        batch: ActivationBatch,
    ) -> None:
        keep = self.peaks.shape[1]
        is_new = chosen >= keep
        old, new = chosen.clamp(max=keep - 1), (chosen - keep).clamp(min=0)
        position = positions[changed].gather(1, new)
        window_index = old[:, :, None].expand(-1, -1, self.ids.shape[2])
        ids = self.ids[changed].gather(1, window_index)
        levels = self.levels[changed].gather(1, window_index)
        feature = changed[:, None].expand_as(chosen)[is_new]
        ids[is_new], levels[is_new] = windows(batch, position[is_new], feature, self.offsets)
        self.peaks[changed] = peaks
        self.documents[changed] = torch.where(
            is_new, documents[changed].gather(1, new), self.documents[changed].gather(1, old)
        )
        self.ids[changed], self.levels[changed] = ids, levels


def windows(
    batch: ActivationBatch, positions: Tensor, features: Tensor, offsets: Tensor
) -> tuple[Tensor, Tensor]:
    """Token ids and activations `[m, window]` around `positions` `[m]`, of `features` `[m]`.

    `offsets` `[window]` are relative to the positions. A window stays within its document and row; outside it holds
    `EMPTY` and 0.
    """
    ids, inside = token_windows(batch, positions, offsets)
    around = (positions[:, None] + offsets).clamp(0, len(batch.ids) - 1)
    return ids, batch.activations[around, features[:, None]].masked_fill(~inside, 0.0)


def token_windows(batch: ActivationBatch, positions: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
    """Token ids `[m, window]` around `positions` `[m]`, and which of them are inside of the document and row."""
    around = positions[:, None] + offsets
    inside = (around >= 0) & (around < len(batch.ids))
    around = around.clamp(0, len(batch.ids) - 1)
    for key in (batch.rows, batch.documents):
        inside &= key[around] == key[positions][:, None]
    return batch.ids[around].masked_fill(~inside, EMPTY).int(), inside


def _peaks_per_document(batch: ActivationBatch, keep: int) -> tuple[Tensor, Tensor]:
    """For each feature the strongest documents of the batch: activations and positions, both `[features, k]`.

    An activation is −inf where the feature is inactive.
    """
    _, counts = torch.unique_consecutive(batch.documents, return_counts=True)
    peaks, positions, start = [], [], 0
    for count in counts.tolist():
        peak, position = batch.activations[start : start + count].max(0)
        peaks.append(peak)
        positions.append(position + start)
        start += count
    best = torch.stack(peaks).topk(min(keep, len(peaks)), dim=0)
    position = torch.stack(positions).gather(0, best.indices)
    return best.values.masked_fill(best.values <= 0, -torch.inf).T.contiguous(), position.T.contiguous()
