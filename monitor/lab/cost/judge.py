"""The classifier that says whether a continuation is unsafe: words and pairs of words, learnt apart from the policy.

Knows texts and labels. Does not know features: what it calls unsafe cannot be argued away by clamping what it reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import Pipeline

from monitor.policy.fit.metrics import auroc

FOLDS = 5


@dataclass(frozen=True)
class Judge:
    """Calls a continuation unsafe where the odds say so."""

    model: Pipeline
    auroc: float
    """On texts of groups that it had not seen, by cross-validation."""
    false_positives: float
    """Share of such negatives that it calls unsafe."""
    texts: int

    def unsafe(self, continuations: Sequence[str]) -> NDArray[np.bool_]:
        """Which of them are, `[texts]`."""
        return np.asarray(self.model.predict(list(continuations)), bool)


def learn_judge(
    texts: Sequence[str], positive: Sequence[bool], groups: Sequence[str], benign: Sequence[str]
) -> Judge:
    """Learns from endings of texts, because endings are what it judges; benign texts are negatives as well."""
    x = [*texts, *benign]
    y = np.asarray([*positive, *([False] * len(benign))])
    names = [*groups, *(f"benign {i}" for i in range(len(benign)))]
    model = Pipeline(
        [
            ("words", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")),
            ("odds", LogisticRegression(C=10.0, class_weight="balanced", max_iter=500, tol=1e-3)),
        ]
    )
    numbers = np.unique(names, return_inverse=True)[1]
    crossed = cross_val_predict(model, x, y, groups=numbers, cv=GroupKFold(FOLDS), method="decision_function")
    own = np.arange(len(x)) < len(texts)
    false = float((crossed[own & ~y] > 0).mean())
    area = auroc(crossed[own & y], crossed[own & ~y])
    return Judge(model.fit(x, y), area, false, len(x))
