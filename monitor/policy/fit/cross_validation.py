"""Cross-validation over groups: scores of every own and benign text by detectors that never saw its group.

Knows rows with labels, groups and importance. Extra rows only ever teach; they are never scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from monitor.policy.fit.baselines import bag_of_words, difference_of_means, linear_probe, random_features
from monitor.policy.fit.detectors import Detector, Features, Rows
from monitor.policy.fit.learner import Recipe, learn_features, learn_probe, weighted
from monitor.policy.fit.lengths import EDGES, NEVER, Reached
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.weights import Pooled

FOLDS = 5


@dataclass(frozen=True)
class Crossed:
    """Held-out scores of all texts, comparable across folds; minus infinity or NaN for rows not measured."""

    features: list[Reached]
    """By rule, in deviations from the mean of the negatives that its detector learnt from."""
    probe: list[Reached]
    """The same for a probe that is read token by token, as a rule would."""
    baselines: dict[str, Floats]
    """`[texts]` by method."""

    def of(self, kind: str) -> list[Reached]:
        """The scores of one kind of detector."""
        return self.probe if kind == "probe" else self.features


def scale_of(detector: Detector, how: Pooled, rows: Rows, which: Indices) -> tuple[float, float]:
    """Mean and deviation of a detector's scores on negative rows, so that folds can be compared."""
    scores = how.score(detector.tokens(rows.read, which[rows.positive[which] == 0]))
    return float(scores.mean()), float(scores.std() + 1e-9)


def cross_validate(rows: Rows, recipe: Recipe) -> Crossed:
    """Scores by detectors that never saw the row's group."""
    out = _blank(len(rows.texts), len(recipe.rules))
    for held in folds(rows, recipe.seed):
        rest = np.setdiff1d(rows.everything, held)
        features = learn_features(rows, rest, recipe)
        _score(features, out.features, rows, recipe, rest, held)
        _score(learn_probe(rows, rest, recipe), out.probe, rows, recipe, rest, held)
        for name, scores in _baselines(rows, rest, held, features, recipe).items():
            out.baselines.setdefault(name, np.full(len(rows.texts), np.nan))[held] = scores
    return out


def _blank(texts: int, rules: int) -> Crossed:
    def empty() -> list[Reached]:
        return [Reached(np.full((texts, len(EDGES) + 1), NEVER), EDGES) for _ in range(rules)]

    return Crossed(empty(), empty(), {})


def _score(
    detector: Detector, out: list[Reached], rows: Rows, recipe: Recipe, rest: Indices, held: Indices
) -> None:
    tokens = detector.tokens(rows.read, held)
    for how, reached in zip(recipe.rules, out, strict=True):
        reached.best[held] = how.reach(tokens).scaled(*scale_of(detector, how, rows, rest)).best


def _baselines(
    rows: Rows, rest: Indices, held: Indices, features: Features, recipe: Recipe
) -> dict[str, Floats]:
    y, importance, means = rows.positive[rest], rows.importance[rest], rows.read.means
    told = [rows.texts[i] for i in rest]
    return {
        "linear_probe": linear_probe(means[rest], y, importance, means[held]),
        "difference_of_means": difference_of_means(means[rest], y, importance, means[held]),
        "bag_of_words": bag_of_words(told, y, importance, [rows.texts[i] for i in held]),
        "random_features": _random(rows, rest, held, len(features.indices), recipe),
    }


def _random(rows: Rows, rest: Indices, held: Indices, count: int, recipe: Recipe) -> Floats:
    ever = np.flatnonzero(np.asarray(rows.read.tokens.take(rest).density()) > 0)
    if not count or not len(ever):
        return np.zeros(len(held))
    how = recipe.rules[0]
    drawn = weighted(rows, rest, recipe, random_features(ever, count, recipe.seed))
    middle, spread = scale_of(drawn, how, rows, rest)
    return np.asarray((how.score(drawn.tokens(rows.read, held)) - middle) / spread)


def folds(rows: Rows, seed: int) -> list[Indices]:
    """The measured rows in parts of whole groups, each part with its share of own and benign groups."""
    rng = np.random.default_rng(seed)
    part = np.full(len(rows.texts), -1)
    for own in (1, 0):
        mine = np.flatnonzero((rows.measured == 1) & (rows.own == own))
        names = rng.permutation(np.unique(rows.groups[mine]))
        place = {int(name): i % FOLDS for i, name in enumerate(names)}
        part[mine] = [place[int(g)] for g in rows.groups[mine]]
    return [np.flatnonzero(part == fold) for fold in range(FOLDS) if (part == fold).any()]
