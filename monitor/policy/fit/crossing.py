"""Cross-validation over groups: scores of every own and benign text by a detector that never saw its group.

Knows rows with labels, groups and importance. Extra rows only ever teach; they are never scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.fit.baselines import bag_of_words, linear_probe
from monitor.policy.fit.readings import Floats, Indices, TokenReadings
from monitor.policy.fit.selecting import select
from monitor.policy.fit.weighing import Detector, Pooled, weigh

FOLDS = 5


@dataclass(frozen=True)
class Rows:
    """All texts of one fit, in one order."""

    texts: Sequence[str]
    tokens: TokenReadings
    means: Floats
    """`[texts, d_model]`"""
    positive: Indices
    """1 for the concept, else 0."""
    groups: Indices
    measured: Indices
    """1 where the row is scored by cross-validation (own examples and benign texts), 0 for extra rows."""
    own: Indices
    """1 for the policy's own examples."""
    importance: Floats


@dataclass(frozen=True)
class Recipe:
    """How a detector is learnt."""

    rules: tuple[Pooled, ...]
    """How each rule pools; weights are learnt for the first."""
    limit: int
    rounds: int
    seed: int
    signed: bool
    """Whether features may speak against the concept."""


def learn(rows: Rows, which: Indices, recipe: Recipe) -> Detector:
    """A detector from some rows; one without features where none is more active on positives."""
    mean = rows.tokens.take(which).means()
    features, stability = select(
        mean,
        rows.positive[which],
        rows.groups[which],
        limit=recipe.limit,
        rounds=recipe.rounds,
        seed=recipe.seed,
        signed=recipe.signed,
    )
    if not len(features):
        return Detector(features, stability, stability)
    texts = rows.tokens.take(which).columns(features)
    weights = weigh(texts, rows.positive[which], rows.importance[which], recipe.rules[0], recipe.signed)
    useful = np.abs(weights) > 1e-3
    return Detector(features[useful], weights[useful], stability[useful])


def scale_of(detector: Detector, how: Pooled, rows: Rows, which: Indices) -> tuple[float, float]:
    """Mean and deviation of a detector's scores on negative rows, so that folds can be compared."""
    scores = score(detector, how, rows, which[rows.positive[which] == 0])
    return float(scores.mean()), float(scores.std() + 1e-9)


def score(detector: Detector, how: Pooled, rows: Rows, which: Indices) -> Floats:
    """Pooled scores of some rows."""
    return how.score(rows.tokens.take(which).columns(detector.features), detector.weights)


@dataclass(frozen=True)
class Crossed:
    """Held-out scores `[texts]`, comparable across folds; NaN for rows that are not measured."""

    rules: list[Floats]
    """By rule, in deviations from the mean of the negatives that its detector learnt from."""
    linear_probe: Floats
    bag_of_words: Floats


def cross_validate(rows: Rows, recipe: Recipe) -> Crossed:
    """Scores by detectors that never saw the row's group."""
    blank = [np.full(len(rows.texts), np.nan) for _ in range(len(recipe.rules) + 2)]
    out = Crossed(blank[2:], blank[0], blank[1])
    for held in folds(rows, recipe.seed):
        rest = np.setdiff1d(np.arange(len(rows.texts)), held)
        detector = learn(rows, rest, recipe)
        for how, scores in zip(recipe.rules, out.rules, strict=True):
            middle, spread = scale_of(detector, how, rows, rest)
            scores[held] = (score(detector, how, rows, held) - middle) / spread
        y, importance = rows.positive[rest], rows.importance[rest]
        out.linear_probe[held] = linear_probe(rows.means[rest], y, importance, rows.means[held])
        texts = [rows.texts[i] for i in rest]
        out.bag_of_words[held] = bag_of_words(texts, y, importance, [rows.texts[i] for i in held])
    return out


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
