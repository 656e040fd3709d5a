"""Fitted policies measured on labelled sources and on benign texts that the fit never saw.

Knows readings, labels and locks. Does not know files or models. Baselines learn from the same kind of rows as the
fit: own examples, benign texts and extra rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.policy.files.lock import Measure
from monitor.policy.fit.baselines import bag_of_words, difference_of_means, linear_probe, random_features
from monitor.policy.fit.detectors import Detector, Rows
from monitor.policy.fit.learner import Recipe, learn_probe, weighted
from monitor.policy.fit.lock_rule import Tried
from monitor.policy.fit.metrics import Truth, measure_all
from monitor.policy.fit.readings import Floats, Indices, TextReadings, join_texts

REQUESTS, CORPUS, UNLIKE = "requests", "corpus", "unlike"
"""What benign texts are: requests that set no threshold, documents of kinds that a fit reads, and of other kinds."""
DRAWN = 48
"""Random features where the lock has none to count."""


@dataclass(frozen=True)
class SourceTexts:
    """Held-out rows of one labelled source, read."""

    name: str
    texts: Sequence[str]
    read: TextReadings
    positive: Indices
    groups: Sequence[str]


@dataclass(frozen=True)
class SourceResult:
    """One rule of a policy on one source."""

    policy: str
    source: str
    positive: int
    negative: int
    caught: float
    """Share of positives on which the rule fires, as locked."""
    fired: float | None
    """Share of negatives on which it fires; None where there are none."""
    methods: dict[str, Measure]
    """AUROC within the source, and recall where 1 % of the unseen benign requests fire."""
    rule: str = ""


@dataclass(frozen=True)
class Rate:
    """How often a rule fires on unseen benign texts of some length."""

    policy: str
    rule: str
    asked: float | None
    source: str
    longer_than: int
    up_to: int | None
    """Tokens of the texts."""
    texts: int
    fired: int
    kind: str = CORPUS
    """What the texts are: `requests`, `corpus` or `unlike`."""

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the rate (Wilson, 1927)."""
        n, z = self.texts, 1.96
        if not n:
            return 0.0, 1.0
        share = self.fired / n
        middle, width = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        whole = 1 + z * z / n
        return float(max(0.0, (middle - width) / whole)), float(min(1.0, (middle + width) / whole))


def on_sources(
    trial: Tried,
    rows: Rows | None,
    sources: Sequence[SourceTexts],
    benign: TextReadings,
    told: Sequence[str],
    seed: int,
) -> list[SourceResult]:
    """A rule and its baselines on labelled sources; `benign` are unseen requests, `told` their texts. Without `rows` to
    learn from there are no baselines.
    """
    parts = [source.read for source in sources] + [benign]
    texts = [text for source in sources for text in source.texts] + list(told)
    scores = _methods(trial, rows, join_texts(parts), texts, seed)
    ends = np.cumsum([len(part) for part in parts])
    requests = np.arange(ends[-2] if len(ends) > 1 else 0, ends[-1])
    results, start = [], 0
    for source, end in zip(sources, ends, strict=False):
        mine = np.arange(start, end)
        results.append(_result(trial, source, {n: (s[mine], s[requests]) for n, s in scores.items()}, seed))
        start = end
    return results


def _result(
    trial: Tried, source: SourceTexts, scores: dict[str, tuple[Floats, Floats]], seed: int
) -> SourceResult:
    count, others = len(source.texts), len(next(iter(scores.values()))[1])
    groups = np.unique(
        [*source.groups, *(f"benign request {i}" for i in range(others))], return_inverse=True
    )[1]
    truth = Truth(
        positive=np.concatenate([source.positive, np.zeros(others, np.intp)]),
        own=np.repeat([1, 0], [count, others]),
        hard=np.zeros(count + others, np.intp),
        groups=groups.astype(np.intp),
    )
    measured = measure_all({name: np.concatenate(pair) for name, pair in scores.items()}, truth, seed)
    fired = trial.fired(source.read)
    yes = source.positive == 1
    return SourceResult(
        policy=trial.policy,
        source=source.name,
        positive=int(yes.sum()),
        negative=int((~yes).sum()),
        caught=float(fired[yes].mean()) if yes.any() else 0.0,
        fired=float(fired[~yes].mean()) if (~yes).any() else None,
        methods={name: found.measure for name, found in measured.items()},
        rule=trial.rule,
    )


def _methods(
    trial: Tried, rows: Rows | None, read: TextReadings, texts: Sequence[str], seed: int
) -> dict[str, Floats]:
    """Scores `[texts]` by method."""
    if rows is None:
        return {"policy": trial.score(read)}
    everything = rows.everything
    y, importance, means = rows.positive, rows.importance, rows.read.means
    recipe = Recipe((trial.how,), DRAWN, 1, seed, signed=True)
    ever = np.flatnonzero(rows.read.tokens.density() > 0)
    count = len(getattr(getattr(trial, "detector", None), "indices", ())) or DRAWN
    drawn = weighted(rows, everything, recipe, random_features(ever, count, seed))

    def pooled(detector: Detector) -> Floats:
        return trial.how.score(detector.tokens(read, np.arange(len(read))))

    return {
        "policy": trial.score(read),
        "probe": pooled(learn_probe(rows, everything, recipe)),
        "linear_probe": linear_probe(means, y, importance, read.means),
        "difference_of_means": difference_of_means(means, y, importance, read.means),
        "bag_of_words": bag_of_words(rows.texts, y, importance, texts),
        "random_features": pooled(drawn),
    }


def rates(
    trial: Tried, source: str, read: TextReadings, edges: Sequence[int], kind: str = CORPUS
) -> list[Rate]:
    """How often a rule fires on benign texts, by their length."""
    fired = trial.fired(read)
    return rates_of(trial.policy, trial.rule, trial.asked, source, fired, read.lengths, edges, kind)


def rates_of(
    policy: str,
    rule: str,
    asked: float | None,
    source: str,
    fired: Indices,
    lengths: Indices,
    edges: Sequence[int],
    kind: str = CORPUS,
) -> list[Rate]:
    """Counts of what fired, by length; buckets without a text are left out."""
    found = []
    for low, high in zip((0, *edges), (*edges, None), strict=True):
        here = (lengths > low) & (lengths <= (np.inf if high is None else high))
        if here.any():
            counts = int(here.sum()), int(fired[here].sum())
            found.append(Rate(policy, rule, asked, source, low, high, *counts, kind))
    return found
