"""Search for features that fire on all of a few example texts and rarely on others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monitor.dictionary.cards.statistics import FeatureStatistics
from monitor.dictionary.explore.text_pooling import PooledTexts


@dataclass(frozen=True)
class SearchHit:
    """A feature that fires on the texts."""

    feature: int
    score: float
    """See `search`; a higher score means a feature more specific to these texts."""
    fired: int
    """Number of texts on which it is active."""
    reading: float
    """Highest activation in units of the feature's maximum, averaged over the texts."""
    density: float
    """Share of the corpus's tokens at which it is active."""
    peaks: tuple[int, ...]
    """For each text the position of the highest activation, counted from BOS; 0 where the feature is inactive."""


def search(pooled: PooledTexts, statistics: FeatureStatistics, *, limit: int) -> list[SearchHit]:
    """The `limit` features with the highest scores, best first; features that fire on none of the texts are left out.

    A feature of density d fires somewhere in n unrelated tokens with probability q = 1 − (1 − d)ⁿ, so seeing it fire
    gives −log₂ q bits of surprise. The score is the product of three numbers: the mean over texts of the surprise (0
    where it did not fire), the mean of the texts' highest readings (each cut at 1), and the share of texts on which it
    fired. A text on which the feature does not fire lowers all three. A feature that fires on most text scores near 0.
    """
    # A feature that never fired in the corpus gets the density of half a token: it is rare, not impossible.
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
        SearchHit(
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
