"""Detectors that read features: the best single one, a sparse rule over few, a dense rule over all.

Knows how to fit them on pooled readings. Does not know how they are chosen between (`choosing`) or measured.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.evaluation.half import Floats, Half
from monitor.dictionary.evaluation.selection import Candidate, Fitted
from monitor.dictionary.explore.auroc import auroc

POOLS = (("max",), ("max", "mean"))
STRENGTHS = (0.3, 1.0)
"""Inverse strengths of the L1 penalty, which decides how many features are left, that are tried."""
REFITS = (0.003, 0.02)
"""Inverse strengths of the L2 penalty, with which those that are left are fitted again, that are tried."""
DENSE = (1e-4, 1e-3, 1e-2)
SCREENED = 400
"""Columns that the sparse rule looks at: those that separate best alone, on the rows it is fitted on."""
_LEAST_ROWS = 5
"""A dense rule leaves out columns that are active on fewer rows."""


def best_feature(half: Half) -> Fitted:
    """The feature and pool whose reading alone separates the rows best, in the direction found on them."""
    values = {"max": _separation(half.maximum, half.labels), "mean": _separation(half.mean, half.labels)}
    pool = max(values, key=lambda name: np.abs(values[name] - 0.5).max())
    feature = int(np.abs(values[pool] - 0.5).argmax())
    sign = 1.0 if values[pool][feature] >= 0.5 else -1.0
    return Fitted(
        lambda other: sign * _pooled(other, (pool,))[:, feature],
        f"#{feature}{'' if sign > 0 else ' (absent)'}, {pool}",
        1,
    )


def sparse_candidates(limit: int) -> list[Candidate]:
    """Sparse rules over at most `limit` features: pools and penalties to choose between."""
    return [
        partial(sparse_rule, pools=pools, strength=strength, refit=refit, limit=limit)
        for pools in POOLS
        for strength in STRENGTHS
        for refit in REFITS
    ]


def dense_candidates() -> list[Candidate]:
    """Rules over all features: what sparsity costs is read off beside them."""
    return [partial(dense_rule, strength=strength) for strength in DENSE]


def sparse_rule(half: Half, *, pools: tuple[str, ...], strength: float, refit: float, limit: int) -> Fitted:
    """Logistic regression on square roots of pooled readings: L1 chooses features, L2 weighs them.

    Square roots bring weak and strong firing closer together. Columns are scaled to deviation 1, so the penalty
    treats rare and common features alike. Choosing and weighing apart undoes the shrinkage of L1 (the "relaxed
    lasso" of Meinshausen, 2007). Where more than `limit` features are left, the largest weights stay.
    """
    x = _pooled(half, pools)
    columns = np.argsort(-np.abs(_separation(x, half.labels) - 0.5), kind="stable")[:SCREENED]
    while True:
        weights, _ = _logistic(x[:, columns], half.labels, l1_ratio=1.0, C=strength, solver="liblinear")
        features = _strongest(columns, weights, half.maximum.shape[1])
        if len(features) <= limit:
            break
        columns = columns[np.isin(columns % half.maximum.shape[1], features[:limit])]
    columns = columns[np.isin(columns % half.maximum.shape[1], features)] if len(features) else columns[:1]
    weights, scale = _logistic(x[:, columns], half.labels, C=refit)
    return Fitted(
        lambda other: np.sqrt(_pooled(other, pools)[:, columns]) @ (weights * scale),
        f"{'+'.join(pools)}, C {strength:g} then {refit:g}",
        max(1, len(features)),
    )


def dense_rule(half: Half, *, strength: float) -> Fitted:
    """L2-penalised logistic regression on square roots of maximum and mean readings of all features."""
    x = _pooled(half, POOLS[-1])
    columns = np.flatnonzero((x > 0).sum(0) >= _LEAST_ROWS)
    weights, scale = _logistic(x[:, columns], half.labels, C=strength, tol=1e-3)
    return Fitted(
        lambda other: np.sqrt(_pooled(other, POOLS[-1])[:, columns]) @ (weights * scale),
        f"C {strength:g}",
        len(np.unique(columns % half.maximum.shape[1])),
    )


def _logistic(
    x: Floats, labels: NDArray[np.bool_], **settings: Any
) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Weights `[columns]` for scaled square roots of `x`, and the scale of each column."""
    from sklearn.linear_model import LogisticRegression

    roots = np.sqrt(x)
    scale = 1 / np.maximum(roots.std(0), 0.02)
    model = LogisticRegression(class_weight="balanced", max_iter=1000, random_state=0, **settings)
    return np.asarray(model.fit(roots * scale, labels).coef_[0]), scale


def _strongest(columns: NDArray[np.intp], weights: NDArray[np.float64], features: int) -> NDArray[np.intp]:
    """Features with a weight that is not zero, the largest weight first."""
    order = np.argsort(-np.abs(weights), kind="stable")
    used = columns[order][weights[order] != 0] % features
    return np.asarray(list(dict.fromkeys(used.tolist())), np.intp)


def _pooled(half: Half, pools: tuple[str, ...]) -> Floats:
    parts = {"max": half.maximum, "mean": half.mean}
    return np.concatenate([parts[pool] for pool in pools], axis=1) if len(pools) > 1 else parts[pools[0]]


def _separation(values: Floats, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUROC `[columns]` of every column alone."""
    table = torch.tensor(values)  # a copy: arrays of other processes are read-only
    rows = torch.tensor(labels)
    return np.asarray(auroc(table[rows], table[~rows]).value.numpy())
