"""Cross-validation over groups: every own example and benign text is scored by detectors that never saw its group.

Extra texts are learnt from in every fold and never scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.policy.fit.baselines import bag_of_words, difference_of_means, linear_probe, random_features
from monitor.policy.fit.detectors import (
    Detector,
    FeatureDetector,
    Recipe,
    learn_features,
    learn_probe,
    weighted,
)
from monitor.policy.fit.lengths import EDGES, NEVER, BucketMaxima
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.rows import FitRows

FOLDS = 5


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of all texts by detectors that never saw the text's group.

    Each fold has its own detector, so scores are standardised by the negatives that it learnt from. Extra texts are
    not scored: they hold minus infinity, or NaN in `baselines`.
    """

    features: list[BucketMaxima]
    """For each rule, scores by weighted features."""
    probe: list[BucketMaxima]
    """For each rule, scores by a probe that is read at every token and pooled as the rule pools."""
    baselines: dict[str, Floats]
    """For each baseline, scores `[texts]`."""

    def of(self, kind: str) -> list[BucketMaxima]:
        """The scores of one kind of detector, `features` or `probe`."""
        return self.probe if kind == "probe" else self.features


def scale_of(detector: Detector, how: RulePooling, rows: FitRows, which: Indices) -> tuple[float, float]:
    """Mean and standard deviation of a detector's scores on the negatives among the rows `which`."""
    scores = how.score(detector.tokens(rows.read, which[rows.positive[which] == 0]))
    return float(scores.mean()), float(scores.std() + 1e-9)


def cross_validate(rows: FitRows, recipe: Recipe) -> HeldOutScores:
    """Score every own example and benign text by detectors that learnt from the other folds."""
    out = _blank(len(rows.texts), len(recipe.poolings))
    for held in folds(rows, recipe.seed):
        rest = np.setdiff1d(rows.everything, held)
        features = learn_features(rows, rest, recipe)
        _score(features, out.features, rows, recipe, rest, held)
        _score(learn_probe(rows, rest, recipe), out.probe, rows, recipe, rest, held)
        for name, scores in _baselines(rows, rest, held, features, recipe).items():
            out.baselines.setdefault(name, np.full(len(rows.texts), np.nan))[held] = scores
    return out


def _blank(texts: int, rules: int) -> HeldOutScores:
    def empty() -> list[BucketMaxima]:
        return [BucketMaxima(np.full((texts, len(EDGES) + 1), NEVER), EDGES) for _ in range(rules)]

    return HeldOutScores(empty(), empty(), {})


def _score(
    detector: Detector, out: list[BucketMaxima], rows: FitRows, recipe: Recipe, rest: Indices, held: Indices
) -> None:
    tokens = detector.tokens(rows.read, held)
    for how, scores in zip(recipe.poolings, out, strict=True):
        scores.best[held] = how.bucket_maxima(tokens).scaled(*scale_of(detector, how, rows, rest)).best


def _baselines(
    rows: FitRows, rest: Indices, held: Indices, features: FeatureDetector, recipe: Recipe
) -> dict[str, Floats]:
    y, importance, means = rows.positive[rest], rows.importance[rest], rows.read.means
    texts = [rows.texts[i] for i in rest]
    return {
        "linear_probe": linear_probe(means[rest], y, importance, means[held]),
        "difference_of_means": difference_of_means(means[rest], y, importance, means[held]),
        "bag_of_words": bag_of_words(texts, y, importance, [rows.texts[i] for i in held]),
        "random_features": _random(rows, rest, held, len(features.indices), recipe),
    }


def _random(rows: FitRows, rest: Indices, held: Indices, count: int, recipe: Recipe) -> Floats:
    ever = np.flatnonzero(np.asarray(rows.read.tokens.take(rest).density()) > 0)
    if not count or not len(ever):
        return np.zeros(len(held))
    how = recipe.poolings[0]
    drawn = weighted(rows, rest, recipe, random_features(ever, count, recipe.seed))
    middle, spread = scale_of(drawn, how, rows, rest)
    return np.asarray((how.score(drawn.tokens(rows.read, held)) - middle) / spread)


def folds(rows: FitRows, seed: int) -> list[Indices]:
    """The measured rows in five parts of whole groups; own and benign groups are spread evenly over the parts."""
    rng = np.random.default_rng(seed)
    part = np.full(len(rows.texts), -1)
    for own in (1, 0):
        mine = np.flatnonzero((rows.measured == 1) & (rows.own == own))
        names = rng.permutation(np.unique(rows.groups[mine]))
        place = {int(name): i % FOLDS for i, name in enumerate(names)}
        part[mine] = [place[int(g)] for g in rows.groups[mine]]
    return [np.flatnonzero(part == fold) for fold in range(FOLDS) if (part == fold).any()]
