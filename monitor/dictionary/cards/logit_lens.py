"""Which tokens a feature makes likelier: its decoder row read through the model's last norm and unembedding.

Knows the "logit lens" of a direction (nostalgebraist, 2020), used for features by Bricken et al. (2023). Leaves
out everything the later layers do with the direction, so it is a hint and not an effect. Does not know the
model: the caller gives norm and unembedding as functions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_NUMBERS = 2**25


@dataclass(frozen=True)
class Unembedding:
    """The way from a residual direction to logits."""

    norm: Callable[[Tensor], Tensor]
    """`[n, d_model]` → `[n, d_model]`: the norm before the unembedding."""
    head: Callable[[Tensor], Tensor]
    """`[n, d_model]` → `[n, vocabulary]`."""

    def logits(self, directions: Tensor) -> Tensor:
        """Logit change `[n, vocabulary]` along each direction `[n, d_model]`, centred over the vocabulary.

        What norm and head add to a zero input is taken off, so that biases do not pass for the feature's work.
        """
        zero = torch.zeros_like(directions[:1])
        effect = self.head(self.norm(directions) - self.norm(zero)) - self.head(zero)
        return effect - effect.mean(-1, keepdim=True)


@dataclass(frozen=True)
class Promoted:
    """Token ids and logit changes `[features, k]`, strongest first."""

    raised: Tensor
    raised_by: Tensor
    lowered: Tensor
    lowered_by: Tensor


@torch.no_grad()
def promoted(decoder: Tensor, unembedding: Unembedding, k: int) -> Promoted:
    """The `k` tokens that each decoder row `[features, d_model]` raises and lowers most."""
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
