"""Which features fire on all of these texts, and rarely otherwise.

Knows how to weigh firing together against how often a feature fires anyway. Does not know the texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.explore.text_pooling import Pooled


@dataclass(frozen=True)
class Hit:
    """A feature that fires on the texts."""

    feature: int
    score: float
    """Bits of surprise per text, weighted by how strongly it fired; higher is more specific."""
    fired: int
    """On how many of the texts it was active."""
    reading: float
    """Mean over the texts of the highest activation, in units of the feature's maximum."""
    density: float
    """Share of tokens it is active on in the corpus."""
    peaks: tuple[int, ...]
    """Per text the position of its highest activation, BOS included in the count; 0 where it was not active."""


def search(pooled: Pooled, statistics: FeatureStatistics, *, limit: int) -> list[Hit]:
    """The features that best answer to all texts together, best first; those that fire on none are left out.

    With density d, a feature fires somewhere in n unrelated tokens with probability q = 1 − (1 − d)ⁿ; seeing it
    fire is −log₂ q bits of surprise. Score = mean over texts of (surprise where it fired, else 0), times the mean
    reading, times the share of texts that fired. So a feature that misses a text loses twice, and one that fires
    everywhere anyway scores nothing.
    """
    # Half a token of doubt: a feature never seen in the corpus is rare, not impossible.
    density = statistics.density.double().clamp(min=0.5 / statistics.tokens)
    quiet = torch.log1p(-density.clamp(max=1 - 1e-12)) * pooled.tokens.double()[:, None]
    surprise = -torch.log2(-torch.expm1(quiet))
    fires = pooled.maximum > 0
    unit = torch.where(statistics.maximum > 0, statistics.maximum, torch.inf)
    seen = pooled.maximum.double() / unit
    share = fires.double().mean(0)
    score = (surprise * fires).mean(0) * seen.clamp(max=1.0).mean(0) * share
    best = score.argsort(descending=True, stable=True)[:limit]
    return [
        Hit(
            feature=feature,
            score=float(score[feature]),
            fired=int(fires[:, feature].sum()),
            reading=float(seen[:, feature].mean()),
            density=float(statistics.density[feature]),
            peaks=tuple(pooled.peak[:, feature].tolist()),
        )
        for feature in best.tolist()
        if score[feature] > 0
    ]
