"""Few features, chosen because many subsamples of the examples choose them.

Stability selection (Meinshausen and Bühlmann, 2010): an L1 logistic regression on each of many random halves of the
groups; a feature's stability is the share of halves that give it a weight of the wanted sign.
Knows pooled readings. Does not know tokens.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from monitor.policy.fit.readings import Floats, Indices

CANDIDATES = 300
"""Features that are looked at more closely, by standardised difference of means."""
LEAST_TEXTS = 3
"""A candidate is active in at least so many positive texts."""
STABLE = 0.25
"""Share of the halves that must agree."""


def select(
    mean: sparse.csr_matrix,
    positive: Indices,
    groups: Indices,
    *,
    limit: int,
    rounds: int,
    seed: int,
    signed: bool = False,
) -> tuple[Indices, Floats]:
    """At most `limit` features and their stabilities, from mean readings `[texts, features]`.

    `positive` is 0 or 1 per text, `groups` an integer per text. `signed` takes features that speak against the
    concept as well. At least one feature comes back where any is more active on positives.
    """
    candidates = _screen(mean, positive, signed)
    if not len(candidates):
        return candidates, np.zeros(0)
    dense = np.asarray(mean[:, candidates].toarray(), np.float64)
    dense /= dense.std(axis=0) + 1e-9
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(candidates))
    for _ in range(rounds):
        rows = _half(groups, positive, rng)
        weights = _sparse_weights(dense[rows], positive[rows], limit, signed)
        chosen += weights != 0 if signed else weights > 0
    stability = chosen / rounds
    best = np.argsort(-stability, kind="stable")[:limit]
    stable = best[stability[best] >= STABLE]
    kept = stable if len(stable) >= 3 else best[:3]
    return candidates[kept], stability[kept]


def _screen(mean: sparse.csr_matrix, positive: Indices, signed: bool) -> Indices:
    """Features with the greatest standardised difference of means, positives above negatives (or either way)."""
    yes, no = mean[positive == 1], mean[positive == 0]
    often = np.asarray(((mean if signed else yes) > 0).sum(axis=0)).ravel() >= LEAST_TEXTS
    up, down = (np.asarray(part.mean(axis=0)).ravel() for part in (yes, no))
    square = np.asarray(mean.multiply(mean).mean(axis=0)).ravel()
    spread = np.sqrt(np.maximum(square - np.asarray(mean.mean(axis=0)).ravel() ** 2, 1e-12))
    gap = np.abs(up - down) if signed else up - down
    effect = np.where(often, gap / spread, -np.inf)
    order = np.argsort(-effect, kind="stable")[:CANDIDATES]
    return np.asarray(order[effect[order] > 0], np.intp)


def _half(groups: Indices, positive: Indices, rng: np.random.Generator) -> Indices:
    """Rows of a random half of the groups, with both classes in it."""
    names = np.unique(groups)
    for _ in range(20):
        rows = np.flatnonzero(np.isin(groups, rng.permutation(names)[: max(2, len(names) // 2)]))
        if len(np.unique(positive[rows])) == 2:
            return rows
    return np.arange(len(groups))


def _sparse_weights(x: Floats, y: Indices, limit: int, signed: bool) -> Floats:
    """Weights of the least regularised L1 logistic regression on the path with at most `limit` wanted ones."""
    weights = np.zeros(x.shape[1])
    for strength in np.geomspace(0.003, 1.0, 9):
        model = LogisticRegression(
            l1_ratio=1.0, C=strength, solver="liblinear", class_weight="balanced", tol=1e-3, max_iter=200
        )
        found = model.fit(x, y).coef_[0]
        if (found != 0 if signed else found > 0).sum() > limit:
            break
        weights = found
    return np.asarray(weights)
