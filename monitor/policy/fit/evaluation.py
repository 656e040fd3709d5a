"""Fitted policies measured on texts that no fit has seen: labelled sources, and benign texts by length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from monitor.policy.files.lock import Separation
from monitor.policy.files.occurrences import Document, plain
from monitor.policy.fit.baselines import bag_of_words, difference_of_means, linear_probe, random_features
from monitor.policy.fit.detectors import Detector, Recipe, learn_probe, weighted
from monitor.policy.fit.metrics import Truth, curve, measure_all
from monitor.policy.fit.readings import Floats, Indices, TextReadings, join_texts
from monitor.policy.fit.rows import FitRows
from monitor.policy.fit.rule_scorers import RuleScorer

REQUESTS, CORPUS, UNLIKE = "requests", "corpus", "unlike"
"""What benign texts are: requests that set no threshold, documents of kinds that a fit reads, and of other kinds."""
DRAWN = 48
"""Number of random features in the baseline of a rule that reads no features."""


@dataclass(frozen=True)
class SourceTexts:
    """Held-out rows of one labelled source, with their readings."""

    name: str
    texts: Sequence[Document]
    """Each where it may occur."""
    read: TextReadings
    positive: Indices
    """`[texts]`: 1 where the text shows the concept, else 0."""
    groups: Sequence[str]
    """The group of each text; intervals resample groups."""


@dataclass(frozen=True)
class RuleOnSource:
    """How one rule of a policy does on one labelled source."""

    policy: str
    source: str
    positive: int
    """Number of positive texts."""
    negative: int
    """Number of negative texts."""
    caught: float
    """Share of positives on which the rule fires with its own threshold."""
    fired: float | None
    """Share of negatives on which it fires; None where there are none."""
    methods: dict[str, Separation]
    """The rule (`policy`) and its baselines: AUROC within the source, recall where 1 % of benign requests fire."""
    rule: str = ""
    curves: dict[str, list[float]] = field(default_factory=dict)
    """For each method the recall where so many benign requests fire, at the rates of `CURVE`."""
    own_curves: dict[str, list[float]] = field(default_factory=dict)
    """The same where so many of the source's negatives fire; empty where it has none."""


@dataclass(frozen=True)
class BenignRate:
    """How often a rule fires on unseen benign texts of some length."""

    policy: str
    rule: str
    asked: float | None
    """The false-positive rate that the policy asks for; None where it gives a threshold."""
    source: str
    """Where the texts come from."""
    longer_than: int
    """The texts are longer than this, in tokens."""
    up_to: int | None
    """The texts are at most so long, in tokens; None for no limit."""
    texts: int
    """Number of texts."""
    fired: int
    """Number of texts on which the rule fires."""
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
    scorer: RuleScorer,
    rows: FitRows | None,
    sources: Sequence[SourceTexts],
    benign: TextReadings,
    request_texts: Sequence[Document],
    seed: int,
) -> list[RuleOnSource]:
    """Measure a rule and its baselines on labelled sources.

    The baselines learn from `rows`; where that is None, the rule is measured alone. `benign` are the readings of
    unseen benign requests, and `request_texts` the texts of these requests.
    """
    parts = [source.read for source in sources] + [benign]
    texts = [plain(text) for source in sources for text in source.texts] + [plain(t) for t in request_texts]
    scores = _methods(scorer, rows, join_texts(parts), texts, seed)
    ends = np.cumsum([len(part) for part in parts])
    requests = np.arange(ends[-2] if len(ends) > 1 else 0, ends[-1])
    results, start = [], 0
    for source, end in zip(sources, ends, strict=False):
        mine = np.arange(start, end)
        results.append(_result(scorer, source, {n: (s[mine], s[requests]) for n, s in scores.items()}, seed))
        start = end
    return results


def _result(
    scorer: RuleScorer, source: SourceTexts, scores: dict[str, tuple[Floats, Floats]], seed: int
) -> RuleOnSource:
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
    fired = scorer.fired(source.read)
    yes = source.positive == 1
    return RuleOnSource(
        policy=scorer.policy,
        source=source.name,
        positive=int(yes.sum()),
        negative=int((~yes).sum()),
        caught=float(fired[yes].mean()) if yes.any() else 0.0,
        fired=float(fired[~yes].mean()) if (~yes).any() else None,
        methods={name: found.measure for name, found in measured.items()},
        rule=scorer.rule,
        curves={name: _curve(own[yes], benign) for name, (own, benign) in scores.items() if others},
        own_curves={name: _curve(own[yes], own[~yes]) for name, (own, _) in scores.items() if not yes.all()},
    )


def _curve(positive: Floats, benign: Floats) -> list[float]:
    return [round(recall, 4) for recall in curve(positive, benign)] if len(positive) else []


def _methods(
    scorer: RuleScorer, rows: FitRows | None, read: TextReadings, texts: Sequence[str], seed: int
) -> dict[str, Floats]:
    """Scores `[texts]` of the rule and of each baseline."""
    if rows is None:
        return {"policy": scorer.score(read)}
    everything = rows.everything
    y, importance, means = rows.positive, rows.importance, rows.read.means
    recipe = Recipe((scorer.how,), DRAWN, seed, signed=True)
    ever = np.flatnonzero(rows.read.tokens.density() > 0)
    count = scorer.features or DRAWN
    drawn = weighted(rows, everything, recipe, random_features(ever, count, seed))

    def pooled(detector: Detector) -> Floats:
        return scorer.how.score(detector.tokens(read, np.arange(len(read))))

    return {
        "policy": scorer.score(read),
        "probe": pooled(learn_probe(rows, everything, recipe)),
        "linear_probe": linear_probe(means, y, importance, read.means),
        "difference_of_means": difference_of_means(means, y, importance, read.means),
        "bag_of_words": bag_of_words(rows.texts, y, importance, texts),
        "random_features": pooled(drawn),
    }


def rates(
    scorer: RuleScorer, source: str, read: TextReadings, edges: Sequence[int], kind: str = CORPUS
) -> list[BenignRate]:
    """How often a rule fires on benign texts, by their length bucket; a bucket ends at each of `edges` (tokens)."""
    fired = scorer.fired(read)
    return rates_of(scorer.policy, scorer.rule, scorer.asked, source, fired, read.lengths, edges, kind)


def rates_of(
    policy: str,
    rule: str,
    asked: float | None,
    source: str,
    fired: Indices,
    lengths: Indices,
    edges: Sequence[int],
    kind: str = CORPUS,
) -> list[BenignRate]:
    """Counts by length bucket, from `fired` `[texts]` (0 or 1) and `lengths` `[texts]` in tokens.

    A bucket ends at each of `edges`; buckets without a text are left out.
    """
    found = []
    for low, high in zip((0, *edges), (*edges, None), strict=True):
        here = (lengths > low) & (lengths <= (np.inf if high is None else high))
        if here.any():
            counts = int(here.sum()), int(fired[here].sum())
            found.append(BenignRate(policy, rule, asked, source, low, high, *counts, kind))
    return found
