"""What a policy is measured beside: a linear probe on the residual stream, and a bag of words.

Each learns from the same rows as the policy and scores the rows that were held out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from monitor.policy.fit.readings import Floats, Indices


def linear_probe(means: Floats, y: Indices, importance: Floats, held_out: Floats) -> Floats:
    """Scores of held-out mean residuals `[texts, d_model]` by ridge logistic regression."""
    centre, scale = means.mean(axis=0), means.std(axis=0) + 1e-6
    model = LogisticRegression(C=0.05, class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit((means - centre) / scale, y, sample_weight=importance)
    return np.asarray(model.decision_function((held_out - centre) / scale))


def bag_of_words(texts: Sequence[str], y: Indices, importance: Floats, held_out: Sequence[str]) -> Floats:
    """Scores of held-out texts by logistic regression on words and pairs of words."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit(words.fit_transform(texts), y, sample_weight=importance)
    return np.asarray(model.decision_function(words.transform(held_out)))
