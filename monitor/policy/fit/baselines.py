"""The baselines that policies are compared with. Each learns from the same rows as the policy.

A linear probe and the difference of means read the mean residual of a text, as in AxBench (Wu et al., 2025). A bag of
words reads the text alone. Random features of the dictionary, as many as the policy has, show how well features do that
were not selected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.weights import logistic


def linear_probe(means: Floats, y: Indices, importance: Floats, held_out: Floats) -> Floats:
    """Scores of held-out mean residuals `[texts, d_model]` by a ridge logistic regression on `means`."""
    centre, scale = means.mean(axis=0), means.std(axis=0) + 1e-6
    weights, bias = logistic((means - centre) / scale, y, importance)
    return np.asarray((held_out - centre) / scale @ weights + bias)


def difference_of_means(means: Floats, y: Indices, importance: Floats, held_out: Floats) -> Floats:
    """Scores of held-out mean residuals: their component along the mean of the positives less that of the negatives."""
    yes, no = (np.average(means[y == label], axis=0, weights=importance[y == label]) for label in (1, 0))
    return np.asarray((held_out - (yes + no) / 2) @ (yes - no))


def bag_of_words(texts: Sequence[str], y: Indices, importance: Floats, held_out: Sequence[str]) -> Floats:
    """Scores of held-out texts by a logistic regression on TF-IDF of words and pairs of words."""
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    model = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500, tol=1e-3)
    model.fit(words.fit_transform(texts), y, sample_weight=importance)
    return np.asarray(model.decision_function(words.transform(held_out)))


def random_features(ever: Indices, count: int, seed: int) -> Indices:
    """`count` features drawn from `ever`, the features that are active somewhere in the rows learnt from."""
    drawn = np.random.default_rng(seed).permutation(ever)[:count]
    return np.asarray(np.sort(drawn), np.intp)
