"""Cross-validation over groups: every own example and benign text is scored by detectors that never saw its group.

Which detector is taken, of how many features and with how much of the probe, is chosen in the same way once more among
the folds that a detector learns from. So what is reported of the chosen one was measured on texts that had no part in
the choice either (Varma and Simon, 2006). One model for each pair of folds serves both: without folds i and j it scores
j for the choice where i is held out, and i where j is.

Extra texts are learnt from in every fold and never scored.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.fit.baselines import bag_of_words, difference_of_means, linear_probe, random_features
from monitor.policy.fit.choice import KINDS, DetectorChoice, Judge, Kind, choose
from monitor.policy.fit.detectors import (
    Detector,
    LearntDetectors,
    Recipe,
    learn,
    learn_all_features,
    weighted,
)
from monitor.policy.fit.feature_selection import SIZES
from monitor.policy.fit.lengths import EDGES, NEVER, BucketMaxima
from monitor.policy.fit.metrics import Truth
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import Floats, Indices
from monitor.policy.fit.rows import FitRows

FOLDS = 5
TOP = 8
"""Tokens in the mean of the strongest, among the aggregates that a card compares."""
ALL = "all"
"""Stands for the number of all features, among the sizes of a card."""
AGGREGATES: dict[str, Callable[[Floats], float]] = {
    "mean": lambda scores: float(scores.mean()),
    "max": lambda scores: float(scores.max()),
    "last": lambda scores: float(scores[-1]),
    "top_k_mean": lambda scores: float(np.sort(scores)[-TOP:].mean()),
}
"""How a whole text's token scores can become one number, besides the rule's own pooling."""


@dataclass(frozen=True)
class HeldOutScores:
    """Scores of all texts by detectors that never saw the text's group.

    Each fold has its own detectors, so scores are standardised by the negatives that these learnt from. Extra texts are
    not scored: they hold minus infinity in `rules`, and NaN elsewhere.
    """

    choice: DetectorChoice
    """The detector that was chosen by all folds; it is the one that runs."""
    rules: list[BucketMaxima]
    """For each rule, scores by detectors of this choice."""
    methods: dict[str, Floats]
    """Scores `[texts]`: `policy` by what was chosen without the text's fold; each kind of detector; the baselines."""
    sizes: dict[str, Floats]
    """Scores `[texts]` by features alone, by their number; `all` are all that are ever active."""
    aggregates: dict[str, Floats]
    """Scores `[texts]` by the chosen detector, by how token scores become one number."""
    stability: dict[int, float]
    """By feature, the share of the folds, and pairs of folds, without which it was chosen too."""


def scale_of(detector: Detector, how: RulePooling, rows: FitRows, which: Indices) -> tuple[float, float]:
    """Mean and standard deviation of a detector's scores on the negatives among the rows `which`."""
    scores = how.score(detector.tokens(rows.read, which[rows.positive[which] == 0]))
    return float(scores.mean()), float(scores.std() + 1e-9)


def cross_validate(rows: FitRows, recipe: Recipe, asked: Kind | None = None) -> HeldOutScores:
    """Score every own example and benign text by detectors that learnt from the other folds.

    The detector is of the kind `asked`, or where none is, of the kind that detects best.
    """
    parts = folds(rows, recipe.seed)
    alone = [_FoldModel(rows, recipe, _without(rows, part), (*recipe.sizes, *SIZES)) for part in parts]
    pairs = {
        frozenset(two): _FoldModel(rows, recipe, _without(rows, *(parts[i] for i in two)), recipe.sizes)
        for two in itertools.combinations(range(len(parts)), 2)
        if len(parts) > 2
    }
    # Where fewer than three folds are, nothing is left to choose by.
    choices = [
        _chosen(
            rows, recipe, {j: pairs[frozenset({i, j})] for j in range(len(parts)) if j != i}, parts, asked
        )
        if pairs
        else DetectorChoice(asked or "features", recipe.limit)
        for i in range(len(parts))
    ]
    choice = _chosen(rows, recipe, dict(enumerate(alone)), parts, asked) if len(parts) > 1 else choices[0]
    return HeldOutScores(
        choice,
        _by_rule(rows, recipe, alone, parts, choice),
        _methods(rows, recipe, alone, parts, choices),
        _by_size(rows, recipe, alone, parts),
        _aggregates(rows, alone, parts, choice),
        _stability([*alone, *pairs.values()], choice.size),
    )


def _without(rows: FitRows, *held: Indices) -> Indices:
    return np.setdiff1d(rows.everything, np.concatenate(held))


def learnt_scores(rows: FitRows, rest: Indices, held: Indices, recipe: Recipe) -> dict[str, Floats]:
    """Scores `[held]` by every kind of detector, as large as the recipe allows, and by the baselines beside them.

    All learn from the rows `rest`. Those of detectors are in deviations of the negatives among these.
    """
    model = _FoldModel(rows, recipe, rest, recipe.sizes)
    found: dict[str, Floats] = _baselines(model, held)
    for kind in KINDS:
        found[kind] = model.scores(DetectorChoice(kind, recipe.limit), held)
    return found


class _FoldModel:
    """Detectors that were learnt from the rows `rest`, and what they make of others."""

    def __init__(self, rows: FitRows, recipe: Recipe, rest: Indices, sizes: Sequence[int]) -> None:
        self.rows, self.recipe, self.rest = rows, recipe, rest
        self.learnt: LearntDetectors = learn(rows, rest, recipe, sizes)

    def scores(self, choice: DetectorChoice, held: Indices) -> Floats:
        """Standardised scores `[held]` as the first rule pools them."""
        return self.pooled(self.learnt.detector(choice), held)

    def pooled(self, detector: Detector, held: Indices) -> Floats:
        """The same of any detector that was learnt from these rows."""
        how = self.recipe.poolings[0]
        middle, spread = scale_of(detector, how, self.rows, self.rest)
        return np.asarray((how.score(detector.tokens(self.rows.read, held)) - middle) / spread)


def _chosen(
    rows: FitRows, recipe: Recipe, models: dict[int, _FoldModel], parts: Sequence[Indices], asked: Kind | None
) -> DetectorChoice:
    """What is chosen by the scores that models give to the folds that they are named after."""
    seen = np.concatenate([parts[i] for i in models])
    judge = Judge(Truth(rows.positive[seen], rows.own[seen], rows.hard[seen], rows.groups[seen]), recipe.seed)

    def scores(choice: DetectorChoice) -> Floats:
        return np.concatenate([model.scores(choice, parts[i]) for i, model in models.items()])

    return choose(judge, scores, recipe.sizes, asked)


def _by_rule(
    rows: FitRows,
    recipe: Recipe,
    models: Sequence[_FoldModel],
    parts: Sequence[Indices],
    choice: DetectorChoice,
) -> list[BucketMaxima]:
    count = len(rows.documents)
    out = [BucketMaxima(np.full((count, len(EDGES) + 1), NEVER), EDGES) for _ in recipe.poolings]
    for model, held in zip(models, parts, strict=True):
        detector = model.learnt.detector(choice)
        tokens = detector.tokens(rows.read, held)
        for how, scores in zip(recipe.poolings, out, strict=True):
            scale = scale_of(detector, how, rows, model.rest)
            scores.best[held] = how.bucket_maxima(tokens).scaled(*scale).best
    return out


def _methods(
    rows: FitRows,
    recipe: Recipe,
    models: Sequence[_FoldModel],
    parts: Sequence[Indices],
    choices: Sequence[DetectorChoice],
) -> dict[str, Floats]:
    found: dict[str, Floats] = {}
    for model, held, choice in zip(models, parts, choices, strict=True):
        kinds = {kind: model.scores(choice.of(kind), held) for kind in KINDS}
        scored: dict[str, Floats] = {"policy": kinds[choice.kind], **_baselines(model, held)}
        scored["random_features"] = _random(model, held, choice.size)
        for kind, scores in kinds.items():
            scored[kind] = scores
        for name, scores in scored.items():
            found.setdefault(name, np.full(len(rows.documents), np.nan))[held] = scores
    return found


def _baselines(model: _FoldModel, held: Indices) -> dict[str, Floats]:
    rows, rest = model.rows, model.rest
    y, importance, means = rows.positive[rest], rows.importance[rest], rows.read.means
    texts = [rows.texts[i] for i in rest]
    return {
        "linear_probe": linear_probe(means[rest], y, importance, means[held]),
        "difference_of_means": difference_of_means(means[rest], y, importance, means[held]),
        "bag_of_words": bag_of_words(texts, y, importance, [rows.texts[i] for i in held]),
    }


def _random(model: _FoldModel, held: Indices, count: int) -> Floats:
    rows, rest, recipe = model.rows, model.rest, model.recipe
    ever = np.flatnonzero(np.asarray(rows.read.tokens.take(rest).density()) > 0)
    if not count or not len(ever):
        return np.zeros(len(held))
    return model.pooled(weighted(rows, rest, recipe, random_features(ever, count, recipe.seed)), held)


def _by_size(
    rows: FitRows, recipe: Recipe, models: Sequence[_FoldModel], parts: Sequence[Indices]
) -> dict[str, Floats]:
    found = {str(size): np.full(len(rows.documents), np.nan) for size in SIZES}
    found[ALL] = np.full(len(rows.documents), np.nan)
    for model, held in zip(models, parts, strict=True):
        for size in SIZES:
            found[str(size)][held] = model.scores(DetectorChoice("features", size), held)
        every = learn_all_features(rows, model.rest, recipe)
        found[ALL][held] = model.pooled(every, held)
    return found


def _aggregates(
    rows: FitRows, models: Sequence[_FoldModel], parts: Sequence[Indices], choice: DetectorChoice
) -> dict[str, Floats]:
    found = {name: np.full(len(rows.documents), np.nan) for name in AGGREGATES}
    leads = rows.read.leads if rows.read.leads is not None else np.zeros(len(rows.documents), np.intp)
    for model, held in zip(models, parts, strict=True):
        detector = model.learnt.detector(choice)
        calm = model.rest[rows.positive[model.rest] == 0]
        both = [
            [text[lead:] for text, lead in zip(detector.tokens(rows.read, which), leads[which], strict=True)]
            for which in (calm, held)
        ]
        for name, aggregate in AGGREGATES.items():
            known, new = (np.asarray([aggregate(t) if len(t) else 0.0 for t in texts]) for texts in both)
            found[name][held] = (new - known.mean()) / (known.std() + 1e-9)
    return found


def _stability(models: Sequence[_FoldModel], size: int) -> dict[int, float]:
    chosen = [set(model.learnt.features[size].indices.tolist()) for model in models]
    return {
        int(feature): sum(feature in one for one in chosen) / len(chosen)
        for feature in sorted(set().union(*chosen))
    }


def folds(rows: FitRows, seed: int) -> list[Indices]:
    """The measured rows in five parts of whole groups; own and benign groups are spread evenly over the parts."""
    rng = np.random.default_rng(seed)
    part = np.full(len(rows.documents), -1)
    for own in (1, 0):
        mine = np.flatnonzero((rows.measured == 1) & (rows.own == own))
        names = rng.permutation(np.unique(rows.groups[mine]))
        place = {int(name): i % FOLDS for i, name in enumerate(names)}
        part[mine] = [place[int(g)] for g in rows.groups[mine]]
    return [np.flatnonzero(part == fold) for fold in range(FOLDS) if (part == fold).any()]
