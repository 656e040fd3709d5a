"""Detectors that read features: the best single feature, a sparse rule over a few, and a dense rule over all."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.dictionary.evaluation.readings import Floats, LabelledReadings
from monitor.dictionary.evaluation.selection import Candidate, FittedDetector
from monitor.dictionary.explore.auroc import auroc

POOLS = (("max",), ("max", "mean"))
"""Poolings to choose from for the sparse rule: maxima alone, or maxima and means."""
STRENGTHS = (0.3, 1.0)
"""Inverse strengths to choose from for the L1 penalty, which selects the features."""
REFITS = (0.003, 0.02)
"""Inverse strengths to choose from for the L2 penalty, with which the selected features are fitted again."""
DENSE = (1e-4, 1e-3, 1e-2)
"""Inverse strengths to choose from for the dense rule's L2 penalty."""
SCREENED = 400
"""Number of columns that enter the sparse rule: those whose AUROC on the fitted rows is farthest from 0.5."""
_LEAST_ROWS = 5
"""Least number of rows on which a column must be active to enter the dense rule."""


def best_feature(readings: LabelledReadings) -> FittedDetector:
    """The single feature and pooling whose AUROC on the training rows is farthest from 0.5.

    Where that AUROC is below 0.5, the score is the reading times −1.
    """
    values = {
        "max": _separation(readings.maximum, readings.labels),
        "mean": _separation(readings.mean, readings.labels),
    }
    pool = max(values, key=lambda name: np.abs(values[name] - 0.5).max())
    feature = int(np.abs(values[pool] - 0.5).argmax())
    sign = 1.0 if values[pool][feature] >= 0.5 else -1.0
    return FittedDetector(
        lambda other: sign * _pooled(other, (pool,))[:, feature],
        f"#{feature}{'' if sign > 0 else ' (absent)'}, {pool}",
        1,
    )


def sparse_candidates(limit: int) -> list[Candidate]:
    """Sparse rules over at most `limit` features, with several poolings and penalties to choose from."""
    return [
        partial(sparse_rule, pools=pools, strength=strength, refit=refit, limit=limit)
        for pools in POOLS
        for strength in STRENGTHS
        for refit in REFITS
    ]


def dense_candidates() -> list[Candidate]:
    """Dense rules with several penalties to choose from. Comparing them with sparse rules shows what sparsity costs."""
    return [partial(dense_rule, strength=strength) for strength in DENSE]


def sparse_rule(
    readings: LabelledReadings, *, pools: tuple[str, ...], strength: float, refit: float, limit: int
) -> FittedDetector:
    """Logistic regression on square roots of pooled readings, over features that an L1 penalty selects.

    Square roots bring weak and strong activations closer together. Columns are scaled to standard deviation 1, so that
    the penalty treats rare and common features alike. Fitting the selected features again, with an L2 penalty, undoes
    the shrinkage of the L1 penalty ("relaxed lasso", Meinshausen, 2007). Where more than `limit` features are selected,
    those with the largest weights are kept.
    """
    x = _pooled(readings, pools)
    columns = np.argsort(-np.abs(_separation(x, readings.labels) - 0.5), kind="stable")[:SCREENED]
    while True:
        weights, _ = _logistic(x[:, columns], readings.labels, l1_ratio=1.0, C=strength, solver="liblinear")
        features = _strongest(columns, weights, readings.maximum.shape[1])
        if len(features) <= limit:
            break
        columns = columns[np.isin(columns % readings.maximum.shape[1], features[:limit])]
    columns = (
        columns[np.isin(columns % readings.maximum.shape[1], features)] if len(features) else columns[:1]
    )
    weights, scale = _logistic(x[:, columns], readings.labels, C=refit)
    return FittedDetector(
        lambda other: np.sqrt(_pooled(other, pools)[:, columns]) @ (weights * scale),
        f"{'+'.join(pools)}, C {strength:g} then {refit:g}",
        max(1, len(features)),
    )


def dense_rule(readings: LabelledReadings, *, strength: float) -> FittedDetector:
    """Logistic regression with an L2 penalty on square roots of the maximum and mean readings of all features."""
    x = _pooled(readings, POOLS[-1])
    columns = np.flatnonzero((x > 0).sum(0) >= _LEAST_ROWS)
    weights, scale = _logistic(x[:, columns], readings.labels, C=strength, tol=1e-3)
    return FittedDetector(
        lambda other: np.sqrt(_pooled(other, POOLS[-1])[:, columns]) @ (weights * scale),
        f"C {strength:g}",
        len(np.unique(columns % readings.maximum.shape[1])),
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
    """The features with a nonzero weight, largest weight first."""
    order = np.argsort(-np.abs(weights), kind="stable")
    used = columns[order][weights[order] != 0] % features
    return np.asarray(list(dict.fromkeys(used.tolist())), np.intp)


def _pooled(readings: LabelledReadings, pools: tuple[str, ...]) -> Floats:
    parts = {"max": readings.maximum, "mean": readings.mean}
    return np.concatenate([parts[pool] for pool in pools], axis=1) if len(pools) > 1 else parts[pools[0]]


def _separation(values: Floats, labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """AUROC `[columns]` of every column alone."""
    table = torch.tensor(values)  # a copy: arrays of other processes are read-only
    rows = torch.tensor(labels)
    return np.asarray(auroc(table[rows], table[~rows]).value.numpy())
