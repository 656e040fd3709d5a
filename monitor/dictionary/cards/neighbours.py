"""Neighbours of features: those with the most similar decoder rows, by cosine."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

_CHUNK_NUMBERS = 2**25


def nearest(decoder: Tensor, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The `k` nearest other features of each of `features` `[m]`: indices and cosines, both `[m, k]`, nearest first.

    `decoder` is `[features, d_model]`. A row of norm zero has cosine 0 with every other. Where fewer than `k` other
    features exist, all of them are given.
    """
    unit = normalize(decoder.float(), dim=-1)
    k = min(k, unit.shape[0] - 1)
    rows = max(1, _CHUNK_NUMBERS // unit.shape[0])
    found = [_nearest_of(unit, part, k) for part in torch.split(features, rows)]
    return torch.cat([index for index, _ in found]), torch.cat([cosine for _, cosine in found])


def _nearest_of(unit: Tensor, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    cosine = unit[features] @ unit.T
    cosine.scatter_(1, features[:, None], -torch.inf)
    best = cosine.topk(k, dim=-1)
    return best.indices, best.values
