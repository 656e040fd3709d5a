"""The logit lens of features: a decoder row is put through the last norm and the unembedding, which gives logits.

The logit lens is by nostalgebraist (2020); Bricken et al. (2023) apply it to features. It ignores what later layers do
with the direction, so it hints at a feature's effect and does not measure it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_NUMBERS = 2**25


@dataclass(frozen=True)
class Unembedding:
    """A model's last norm and unembedding, as functions."""

    norm: Callable[[Tensor], Tensor]
    """The last norm, from `[n, d_model]` to `[n, d_model]`."""
    head: Callable[[Tensor], Tensor]
    """The unembedding, from `[n, d_model]` to `[n, vocabulary]`."""

    def logits(self, directions: Tensor) -> Tensor:
        """Logits `[n, vocabulary]` of each direction `[n, d_model]`, minus their mean over the vocabulary.

        What norm and head give for a zero input is subtracted, since their biases are not the feature's effect.
        """
        zero = torch.zeros_like(directions[:1])
        effect = self.head(self.norm(directions) - self.norm(zero)) - self.head(zero)
        return effect - effect.mean(-1, keepdim=True)


@dataclass(frozen=True)
class Promoted:
    """The tokens whose logits each feature raises and lowers most: ids and logits, `[features, k]`, strongest first."""

    raised: Tensor
    raised_by: Tensor
    lowered: Tensor
    lowered_by: Tensor


@torch.no_grad()
def promoted(decoder: Tensor, unembedding: Unembedding, k: int) -> Promoted:
    """The `k` tokens with the highest and with the lowest logits, for each row of `decoder` `[features, d_model]`."""
    vocabulary = unembedding.logits(decoder[:1]).shape[-1]
    k = min(k, vocabulary)
    up, down = [], []
    for rows in torch.split(decoder, max(1, _CHUNK_NUMBERS // vocabulary)):
        effect = unembedding.logits(rows).float()
        up.append(effect.topk(k, dim=-1))
        down.append(effect.topk(k, dim=-1, largest=False))
    return Promoted(
        raised=torch.cat([part.indices for part in up]),
        raised_by=torch.cat([part.values for part in up]),
        lowered=torch.cat([part.indices for part in down]),
        lowered_by=torch.cat([part.values for part in down]),
    )
