"""Made-up labelled readings in which some features are known to separate the classes."""

from __future__ import annotations

import numpy as np

from monitor.dictionary.evaluation.readings import LabelledReadings

FEATURES = 40
RARE = np.full(FEATURES, 0.001)
"""A density for every feature."""


def made_readings(
    rows: int, seed: int, *, telling: tuple[int, ...] = (3, 7), groups: int | None = None
) -> LabelledReadings:
    """Features `telling` fire more on positives, the word "power" stands in most of them, residuals lean their way."""
    draw = np.random.default_rng(seed)
    labels = draw.random(rows) < 0.5
    maximum = np.where(draw.random((rows, FEATURES)) < 0.3, draw.random((rows, FEATURES)), 0.0)
    for feature in telling:
        maximum[:, feature] = np.where(draw.random(rows) < np.where(labels, 0.7, 0.2), 0.5, 0.0)
    residual = draw.normal(size=(rows, 8))
    residual[:, 2] += labels
    words = np.where(labels & (draw.random(rows) < 0.8), "power", "rain")
    texts = tuple(f"said {word} today w{i % 5}" for i, word in enumerate(words))
    return LabelledReadings(
        texts=texts,
        replies=texts,
        labels=labels,
        units=np.arange(rows) % (groups or rows),
        maximum=maximum.astype(np.float32),
        mean=(maximum / 3).astype(np.float32),
        residual=residual.astype(np.float32),
    )


def made_benign(silent):
    """Readings of 100 benign texts on which only the features `silent` never fire."""
    benign = np.random.default_rng(0).random((100, FEATURES)).astype(np.float32)
    benign[:, silent] = 0
    return benign
