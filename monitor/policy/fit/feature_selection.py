"""Which features of the dictionary a policy uses: those that detect its concept, and those that suppression clamps.

Detecting features are chosen by stability selection (Meinshausen and Bühlmann, 2010): an L1 logistic regression is
fitted on each of many random halves of the groups, and features that enough halves choose are taken. Features to clamp
are chosen by their causal effect (attribution patching, Nanda 2023, with the gradient at the tapped layer).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from monitor.policy.files.lock import LockedClamp
from monitor.policy.fit.readings import Floats, Indices

CANDIDATES = 300
"""Features that the regressions look at: those with the greatest standardised difference of means."""
LEAST_TEXTS = 3
"""A candidate is active in at least this many texts: positive ones, or with `signed` any."""
STABLE = 0.25
"""A feature is taken where at least this share of the halves chose it."""
LEAST_RATIO = 4.0
"""A clamped feature is active at least this many times as often on the concept as on benign text."""
LEAST_DENSITY = 0.002
"""A clamped feature is active on at least this share of the concept's tokens; below, a clamp changes nothing."""
MOST_CLAMPS = 25
SHOWN_RATIO = 1000.0
"""Largest ratio that is written to a lock. The true one is unbounded where benign text never activates the feature."""


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

    `positive` is 0 or 1 and `groups` an integer for each text. A feature's stability is the share of the `rounds`
    halves whose regression gave it a positive weight, or with `signed` any weight but zero. Where fewer than three
    features are stable, the three most stable are taken. Nothing is returned where there are no candidates: features
    active in `LEAST_TEXTS` texts with a higher mean on positives, or with `signed` a different one.
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


def choose_clamps(
    effect: Floats, concept: Floats, benign: Floats, maxima: Floats, target: float
) -> list[LockedClamp]:
    """The features to clamp, at most 25 and possibly none, the greatest effect first.

    A feature qualifies where its activity raises the log-probability of the concept's texts more than that of the
    negatives, and it is active at least four times as often on the concept as on benign text. Arrays are `[features]`:
    `effect` on the log-probability in nats per token (positives minus negatives), the shares of `concept` and `benign`
    tokens on which each is active, and the recorded `maxima`. `target` is in units of the maximum.
    """
    ratio = concept / np.maximum(benign, 1e-9)
    fit = (effect > 0) & (ratio >= LEAST_RATIO) & (concept >= LEAST_DENSITY) & (maxima > 0)
    best = [i for i in np.argsort(-effect, kind="stable")[: MOST_CLAMPS * 40] if fit[i]][:MOST_CLAMPS]
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
        # liblinear shuffles; left out, the random state would be numpy's global one, and no lock could be made again.
        model = LogisticRegression(
            l1_ratio=1.0,
            C=strength,
            solver="liblinear",
            class_weight="balanced",
            tol=1e-3,
            max_iter=200,
            random_state=0,
        )
        found = model.fit(x, y).coef_[0]
        if (found != 0 if signed else found > 0).sum() > limit:
            break
        weights = found
    return np.asarray(weights)
