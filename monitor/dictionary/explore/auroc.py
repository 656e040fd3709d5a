"""AUROC of many columns of scores at once, with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

_CHUNK_NUMBERS = 2**24


@dataclass(frozen=True)
class Auroc:
    """Area under the ROC curve of each column, and the ends of its interval; each `[columns]` float64."""

    value: Tensor
    low: Tensor
    high: Tensor


def auroc(positive: Tensor, negative: Tensor, confidence: float = 0.95) -> Auroc:
    """AUROC of every column of `positive` `[m, columns]` against `negative` `[n, columns]`; ties count half.

    The interval is DeLong's (1988) on the logit scale, which keeps it between 0 and 1 (Pepe, 2003). It treats rows as
    independent. Where all pairs are ordered alike (or all are ties), the estimated variance is 0. The interval then
    reaches as far as the exact binomial bound for min(m, n) independent pairs, which is conservative. Raises ValueError
    where a side has fewer than two rows.
    """
    m, n = len(positive), len(negative)
    if m < 2 or n < 2:
        raise ValueError(f"an AUROC with an interval needs two rows of each class; found {m} and {n}")
    columns = max(1, _CHUNK_NUMBERS // (m + n))
    parts = [
        _placements(p, q)
        for p, q in zip(torch.split(positive, columns, 1), torch.split(negative, columns, 1), strict=True)
    ]
    value = torch.cat([part[0] for part in parts])
    variance = torch.cat([part[1] for part in parts])
    low, high = _interval(value, variance, min(m, n), confidence)
    return Auroc(value, low, high)


def _placements(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """AUROC and its DeLong variance, `[columns]` each."""
    p, q = positive.double().T.contiguous(), negative.double().T.contiguous()
    above = _share_below(q.sort(-1).values, p)
    below = 1 - _share_below(p.sort(-1).values, q)
    return above.mean(-1), above.var(-1) / p.shape[1] + below.var(-1) / q.shape[1]


def _share_below(ordered: Tensor, values: Tensor) -> Tensor:
    """Share of `ordered` `[columns, n]` that lies below each of `values` `[columns, m]`; ties count half."""
    left = torch.searchsorted(ordered, values)
    right = torch.searchsorted(ordered, values, right=True)
    return (left + right).double() / (2 * ordered.shape[-1])


def _interval(value: Tensor, variance: Tensor, pairs: int, confidence: float) -> tuple[Tensor, Tensor]:
    tail = (1 - confidence) / 2
    z = NormalDist().inv_cdf(1 - tail)
    inner = value.clamp(1e-12, 1 - 1e-12)
    reach = z * variance.sqrt() / (inner * (1 - inner))
    low, high = torch.sigmoid(inner.logit() - reach), torch.sigmoid(inner.logit() + reach)
    edge = tail ** (1 / pairs)
    degenerate = variance <= 1e-12
    low = torch.where(degenerate, (value - (1 - edge)).clamp(min=0), low)
    high = torch.where(degenerate, (value + (1 - edge)).clamp(max=1), high)
    return low, high
