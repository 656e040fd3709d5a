"""Baseline detectors that feature rules are compared with: linear probe, difference of means, bag of words.

They are fitted on the same texts as the feature rules, with settings chosen in the same way.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from monitor.dictionary.evaluation.readings import LabelledReadings
from monitor.dictionary.evaluation.selection import Candidate, FittedDetector

PROBE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
WORD_STRENGTHS = (1.0, 10.0, 100.0)
_WORD = r"(?u)\w+|[^\w\s]"
"""A word, or any other visible character alone, so that code and punctuation count."""


def probe_candidates() -> list[Candidate]:
    """Linear probes with several strengths of the penalty, to choose from."""
    return [partial(linear_probe, strength=strength) for strength in PROBE_STRENGTHS]


def linear_probe(readings: LabelledReadings, *, strength: float) -> FittedDetector:
    """Logistic regression with an L2 penalty on mean residuals, each dimension scaled to standard deviation 1."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=strength, class_weight="balanced", max_iter=5000)
    ).fit(readings.residual, readings.labels)
    return FittedDetector(
        lambda other: np.asarray(model.decision_function(other.residual)), f"C {strength:g}"
    )


def difference_of_means(readings: LabelledReadings) -> FittedDetector:
    """Projection onto the difference of the classes' mean residuals (Marks & Tegmark, 2023)."""
    direction = readings.residual[readings.labels].mean(0) - readings.residual[~readings.labels].mean(0)
    return FittedDetector(lambda other: other.residual @ direction)


def word_candidates(readings: LabelledReadings) -> list[Candidate]:
    """Bag-of-words detectors to choose from: naive Bayes and logistic regression on tf-idf.

    Each reads either the whole text or, where the texts have replies that differ from them, the reply alone.
    """
    parts = ("text", "reply") if readings.texts != readings.replies else ("text",)
    return [
        candidate
        for part in parts
        for candidate in (
            partial(naive_bayes, part=part),
            *(partial(word_logistic, part=part, strength=strength) for strength in WORD_STRENGTHS),
        )
    ]


def naive_bayes(readings: LabelledReadings, *, part: str) -> FittedDetector:
    """Multinomial naive Bayes on which words and word pairs occur. `part` is `text` or `reply`."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.naive_bayes import MultinomialNB

    counter = CountVectorizer(token_pattern=_WORD, ngram_range=(1, 2), binary=True)
    model = MultinomialNB(alpha=0.3).fit(counter.fit_transform(_texts(readings, part)), readings.labels)

    def score(other: LabelledReadings) -> Any:
        logs = model.predict_log_proba(counter.transform(_texts(other, part)))
        return logs[:, 1] - logs[:, 0]

    return FittedDetector(score, f"naive Bayes, {part}")


def word_logistic(readings: LabelledReadings, *, part: str, strength: float) -> FittedDetector:
    """Logistic regression on tf-idf of words and word pairs. `part` is `text` or `reply`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(token_pattern=_WORD, ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=strength, class_weight="balanced", max_iter=5000),
    ).fit(_texts(readings, part), readings.labels)
    return FittedDetector(
        lambda other: np.asarray(model.decision_function(_texts(other, part))),
        f"tf-idf C {strength:g}, {part}",
    )


def _texts(readings: LabelledReadings, part: str) -> tuple[str, ...]:
    return readings.texts if part == "text" else readings.replies
