"""Detectors that read features: the best single one, and a sparse rule over few.

Knows how to fit them on pooled readings. Does not know how they are chosen between (`choosing`) or measured.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.auroc import auroc
from monitor.dictionary.evaluation.choosing import Candidate, Fitted
from monitor.dictionary.evaluation.half import Floats, Half

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Inverse strengths of the penalty that are tried."""
SCREENED = 400
"""Columns that the sparse rule looks at: those that separate best alone, on the rows it is fitted on."""


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
        partial(sparse_rule, pools=pools, strength=strength, limit=limit)
        for pools in (("max",), ("max", "mean"))
        for strength in STRENGTHS
    ]


def sparse_rule(half: Half, *, pools: tuple[str, ...], strength: float, limit: int) -> Fitted:
    """L1-penalised logistic regression on the square roots of pooled readings (Tibshirani, 1996).

    Square roots bring weak and strong firing closer together. Columns are scaled to deviation 1, so the penalty
    treats rare and common features alike. Where more than `limit` features are left, those with the largest
    weights stay and are fitted again.
    """
    from sklearn.linear_model import LogisticRegression

    x = _pooled(half, pools)
    columns = np.argsort(-np.abs(_separation(x, half.labels) - 0.5), kind="stable")[:SCREENED]
    weights = np.zeros(0)
    while True:
        scale = 1 / np.maximum(np.sqrt(x[:, columns]).std(0), 1e-3)
        model = LogisticRegression(
            C=strength,
            l1_ratio=1.0,
            solver="liblinear",
            class_weight="balanced",
            max_iter=1000,
            random_state=0,
        ).fit(np.sqrt(x[:, columns]) * scale, half.labels)
        weights = model.coef_[0] * scale
        features = _strongest(columns, model.coef_[0], half.maximum.shape[1])
        if len(features) <= limit:
            break
        columns = columns[np.isin(columns % half.maximum.shape[1], features[:limit])]
    return Fitted(
        lambda other: np.sqrt(_pooled(other, pools)[:, columns]) @ weights,
        f"{'+'.join(pools)}, C {strength:g}",
        len(features),
    )


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
