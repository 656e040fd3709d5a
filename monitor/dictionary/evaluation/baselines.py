"""What a feature rule is measured against: a linear probe, a difference of means, a bag of words.

Knows how to fit them. They see the same rows as the feature rules, and are tuned with as much care.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from monitor.dictionary.evaluation.half import Half
from monitor.dictionary.evaluation.selection import Candidate, Fitted

PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
WORD_STRENGTHS = (1.0, 10.0, 100.0)
_WORD = r"(?u)\w+|[^\w\s]"
"""Words, and every other visible character on its own: code and punctuation count."""


def probe_candidates() -> list[Candidate]:
    """Linear probes of several penalties."""
    return [partial(linear_probe, strength=strength) for strength in PROBE_STRENGTHS]


def linear_probe(half: Half, *, strength: float) -> Fitted:
    """L2-penalised logistic regression on mean residuals, each dimension scaled to deviation 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
    ).fit(half.residual, half.labels)
    return Fitted(lambda other: np.asarray(model.decision_function(other.residual)), f"C {strength:g}")


def difference_of_means(half: Half) -> Fitted:
    """Projection on the difference of the classes' mean residuals (Marks & Tegmark, 2023)."""
    direction = half.residual[half.labels].mean(0) - half.residual[~half.labels].mean(0)
    return Fitted(lambda other: other.residual @ direction)


def word_candidates(half: Half) -> list[Candidate]:
    """Bags of words to choose between: on the whole text or the judged part, naive Bayes or tf-idf with logistic."""
    parts = ("text", "reply") if half.texts != half.replies else ("text",)
    return [
        candidate
        for part in parts
        for candidate in (
            partial(naive_bayes, part=part),
            *(partial(word_logistic, part=part, strength=strength) for strength in WORD_STRENGTHS),
        )
    ]


def naive_bayes(half: Half, *, part: str) -> Fitted:
    """Multinomial naive Bayes on the words and word pairs that a text holds."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    counter = CountVectorizer(token_pattern=_WORD, ngram_range=(1, 2), binary=True)
    model = MultinomialNB(alpha=0.3).fit(counter.fit_transform(_texts(half, part)), half.labels)

    def score(other: Half) -> Any:
        logs = model.predict_log_proba(counter.transform(_texts(other, part)))
        return logs[:, 1] - logs[:, 0]

    return Fitted(score, f"naive Bayes, {part}")


def word_logistic(half: Half, *, part: str, strength: float) -> Fitted:
    """Logistic regression on tf-idf of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=strength, class_weight="balanced", max_iter=5000),
    ).fit(_texts(half, part), half.labels)
    return Fitted(
        lambda other: np.asarray(model.decision_function(_texts(other, part))),
        f"tf-idf C {strength:g}, {part}",
    )


def _texts(half: Half, part: str) -> tuple[str, ...]:
    return half.texts if part == "text" else half.replies
