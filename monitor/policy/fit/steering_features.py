"""Which features to clamp: those that make the model say it, and that benign text hardly uses.

Knows attributions and densities per feature. A feature qualifies where it is active at least four times as often
on the concept as on benign text, and its activity raises the log-probability of the concept's texts more than
that of the negatives (attribution patching, Nanda 2023, with the gradient at the tapped layer).
"""

from __future__ import annotations

import numpy as np

from monitor.policy.files.lock import LockedClamp
from monitor.policy.fit.readings import Floats

RATIO = 4.0
"""Least ratio of densities, concept to benign."""
LIMIT = 25
LEAST_DENSITY = 0.002
"""A clamp on a feature that hardly ever fires changes nothing."""
SHOWN_RATIO = 1000.0


def choose_clamps(
    effect: Floats, concept: Floats, benign: Floats, maxima: Floats, target: float
) -> list[LockedClamp]:
    """The features with the greatest effect among those that qualify, at most 25; possibly none.

    All arguments are `[features]`: `effect` in nats per token (positives minus negatives), densities on the
    concept's tokens and on benign tokens, recorded maxima. `target` is in units of the maximum.
    """
    ratio = concept / np.maximum(benign, 1e-9)
    fit = (effect > 0) & (ratio >= RATIO) & (concept >= LEAST_DENSITY) & (maxima > 0)
    best = [i for i in np.argsort(-effect, kind="stable")[: LIMIT * 40] if fit[i]][:LIMIT]
    return [
        LockedClamp(
            index=int(i),
            target=target,
            maximum=float(maxima[i]),
            attribution=float(effect[i]),
            ratio=float(min(ratio[i], SHOWN_RATIO)),
        )
        for i in best
    ]
