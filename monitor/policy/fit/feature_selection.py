"""Which features of the dictionary a policy uses: those that detect its concept, and those that suppression clamps.

Detecting features are chosen forward: those along which the loss of a logistic regression falls fastest are taken in,
and the regression on all that were taken is fitted again (fully corrective selection, Shalev-Shwartz et al., 2010).
What earlier ones say already counts less for the next. Features to clamp are chosen by their causal effect
(attribution patching, Nanda 2023, with the gradient at the tapped layer).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.special import expit

from monitor.policy.files.lock import LockedClamp
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.weights import SPARSE, costs, logistic, scales

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Numbers of features of which detectors are made."""
LEAST_TEXTS = 3
"""A candidate is active in at least this many texts: positive ones, or with `signed` any."""
LEAST_RATIO = 4.0
"""A clamped feature is active at least this many times as often on the concept as on benign text."""
LEAST_DENSITY = 0.002
"""A clamped feature is active on at least this share of the concept's tokens; below, a clamp changes nothing."""
MOST_CLAMPS = 25
SHOWN_RATIO = 1000.0
"""Largest ratio that is written to a lock. The true one is unbounded where benign text never activates the feature."""


def ranked(
    mean: sparse.csr_matrix,
    y: Indices,
    importance: Floats,
    sizes: Sequence[int] = SIZES,
    *,
    signed: bool = True,
) -> Indices:
    """The features that detect best together, the first taken in first; at most as many as the largest of `sizes`.

    `mean` holds mean readings `[texts, features]`; `y` is 0 or 1 and `importance` a weight for each text. After each of
    the sizes the regression is fitted again. Unless `signed`, features are taken for positives alone.
    """
    candidates = candidates_of(mean, y, signed)
    x = mean[:, candidates].tocsc()
    middle = np.asarray(x.mean(axis=0)).ravel()
    square = np.asarray(x.multiply(x).mean(axis=0)).ravel()
    scale = scales(np.sqrt(np.maximum(square - middle**2, 0.0)), SPARSE.power)
    sign, cost = 2.0 * y - 1.0, costs(y, importance)
    order: list[int] = []
    margin = np.zeros(len(y))
    for size in sizes:
        pull = cost * sign * expit(-margin)
        gain = (x.T @ pull - middle * pull.sum()) / scale
        gain = np.abs(gain) if signed else gain
        gain[order] = -np.inf
        best = np.argsort(-gain, kind="stable")[: size - len(order)]
        order += best[gain[best] > 0].tolist()
        if not order:
            break
        taken = x[:, order].toarray()
        weights, bias = logistic(taken, y, importance, signed, SPARSE)
        margin = sign * (taken @ weights + bias)
    return np.asarray(candidates[order], np.intp)


def candidates_of(mean: sparse.csr_matrix, y: Indices, signed: bool = True) -> Indices:
    """The features that are active in at least three texts, or unless `signed` in three positive ones."""
    often = np.asarray(((mean if signed else mean[y == 1]) > 0).sum(axis=0)).ravel() >= LEAST_TEXTS
    return np.flatnonzero(often)


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
