"""A linear probe on a later layer. It detects whether later layers rebuild what suppression removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from scipy.signal import lfilter

from monitor.policy.files.lock import LockedProbe, packed
from monitor.policy.files.occurrences import Document
from monitor.policy.fit.metrics import auroc, threshold_at
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.rows import FitRows
from monitor.policy.fit.weights import logistic
from monitor.policy.schema.policy import Ema, PolicyModel, pooling_of

RATE = 0.01
"""Share of unseen benign texts that reach the probe's threshold."""
HALF_LIFE = 12.0
"""Half-life of the moving average in tokens, where no rule of the policy sets another."""
FOLDS = 5


class LaterReader(Protocol):
    """Reads the residual stream at one layer after the tapped layer."""

    @property
    def layer(self) -> int:
        """The decoder layer whose output is read."""

    def residuals(self, texts: Sequence[Document]) -> list[Floats]:
        """Residuals `[tokens, d_model]` of what is judged of each text, attention sinks left out."""


def fit_later(policy: PolicyModel, rows: FitRows, reader: LaterReader, seed: int = 0) -> LockedProbe | None:
    """The later probe of a policy that suppresses; None where it does not, or has no positive examples.

    It learns from mean residuals of the examples and of half of the benign texts. The other half sets its threshold.
    """
    mine = np.flatnonzero(rows.own == 1)
    if policy.suppress is None or not len(rows.own_positive):
        return None
    own, other = (reader.residuals([rows.documents[int(i)] for i in which]) for which in (mine, rows.benign))
    rng = np.random.default_rng(seed)
    teaches = rng.permutation(len(other)) % 2 == 0
    x = np.stack([*map(mean, own), *(mean(other[i]) for i in np.flatnonzero(teaches))])
    y = np.concatenate([rows.positive[mine], np.zeros(int(teaches.sum()), np.intp)])
    names = np.concatenate([rows.groups[mine], rows.groups[rows.benign][teaches]])
    groups = np.unique(names, return_inverse=True)[1].astype(np.intp)
    weights, bias = linear(x, y)
    half_life = _half_life(policy)
    unseen = [other[i] for i in np.flatnonzero(~teaches)]
    scores = np.asarray([highest(tokens @ weights + bias, half_life) for tokens in unseen])
    return LockedProbe(
        layer=reader.layer,
        weights=packed(weights.astype(np.float32)),
        bias=bias,
        threshold=threshold_at(scores, RATE),
        half_life=half_life,
        benign_rate=RATE,
        auroc=_crossed(x, y, groups, len(mine), rng),
    )


def linear(x: Floats, y: Indices) -> tuple[Floats, float]:
    """Weights `[d_model]` and bias of a ridge logistic regression on standardised rows `[texts, d_model]`."""
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-6
    found, bias = logistic((x - centre) / scale, y, np.ones(len(y)))
    weights = found / scale
    return weights, float(bias - centre @ weights)


def highest(scores: Floats, half_life: float) -> float:
    """The highest moving average of token scores `[tokens]`, starting at zero; 0 for a text without tokens."""
    if not len(scores):
        return 0.0
    keep = 2.0 ** (-1.0 / half_life)
    return float(lfilter([1.0 - keep], [1.0, -keep], scores).max())


def mean(rows: Floats) -> Floats:
    """Mean residual `[d_model]` of a text with residuals `[tokens, d_model]`; zero where it has no token."""
    return np.asarray(rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1]), np.float64)


def _half_life(policy: PolicyModel) -> float:
    poolings = [pooling_of(rule.pooling) for rule in policy.rules if rule.action == "suppress"]
    return next((p.half_life for p in poolings if isinstance(p, Ema)), HALF_LIFE)


def _crossed(x: Floats, y: Indices, groups: Indices, own: int, rng: np.random.Generator) -> float:
    """AUROC on the policy's own examples by probes that never saw the example's group."""
    part = rng.permutation(int(groups.max()) + 1)[groups] % FOLDS
    scores = np.zeros(len(y))
    for fold in range(FOLDS):
        rest = part != fold
        if len(np.unique(y[rest])) == 2:
            weights, bias = linear(x[rest], y[rest])
            scores[~rest] = x[~rest] @ weights + bias
    mine = np.arange(len(y)) < own
    return auroc(scores[mine & (y == 1)], scores[mine & (y == 0)])
