"""How a detector is learnt from labelled rows: by features of the dictionary, or as a probe.

Knows rows and pooling. Does not know folds, thresholds or cards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.policy.fit.detectors import Features, Probe, Rows
from monitor.policy.fit.feature_selection import select
from monitor.policy.fit.readings import Indices
from monitor.policy.fit.weights import Pooled, weigh

SLIGHT = 1e-3
"""Weights below this share of the largest are left out."""


@dataclass(frozen=True)
class Recipe:
    """How a detector is learnt."""

    rules: tuple[Pooled, ...]
    """How each rule pools; weights are learnt for the first."""
    limit: int
    rounds: int
    seed: int
    signed: bool
    """Whether features may speak against the concept."""


def learn_features(rows: Rows, which: Indices, recipe: Recipe) -> Features:
    """Features and weights from some rows; none where no feature is more active on positives."""
    features, stability = select(
        rows.read.tokens.take(which).means(),
        rows.positive[which],
        rows.groups[which],
        limit=recipe.limit,
        rounds=recipe.rounds,
        seed=recipe.seed,
        signed=recipe.signed,
    )
    if not len(features):
        return Features(features, stability, stability)
    found = weighted(rows, which, recipe, features)
    useful = np.abs(found.weights) > SLIGHT
    return Features(features[useful], found.weights[useful], stability[useful])


def weighted(rows: Rows, which: Indices, recipe: Recipe, features: Indices) -> Features:
    """Given features with weights learnt from some rows."""
    texts = rows.read.tokens.take(which).columns(features)
    weights = weigh(texts, rows.positive[which], rows.importance[which], recipe.rules[0], recipe.signed)
    return Features(features, weights, np.ones(len(features)))


def learn_probe(rows: Rows, which: Indices, recipe: Recipe) -> Probe:
    """A direction of the residual stream, learnt for token-by-token use under the first rule's pooling.

    Residuals are standardised by the mean residuals of the texts for learning; the probe that comes back applies
    to residuals as they are, is zero at their mean, and is 1 at the strongest of the tokens it learnt from.
    """
    means = rows.read.means[which]
    centre, scale = means.mean(axis=0), means.std(axis=0) + 1e-6
    texts = [((rows.read.residual(int(i)) - centre) / scale).astype(np.float32) for i in which]
    weights = weigh(texts, rows.positive[which], rows.importance[which], recipe.rules[0], signed=True)
    strongest = max((float(np.abs(text @ weights).max()) for text in texts if len(text)), default=1.0)
    return Probe(weights / scale, float(-(weights / scale) @ centre), max(strongest, 1e-9))
