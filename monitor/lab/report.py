"""The report about a policy set: what an evaluation found, with texts shown token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from monitor.lab.data_folder import DataFolder
from monitor.lab.evaluation_results import ANY, PolicyEvaluation
from monitor.lab.policy_evaluation import PolicyEvaluator, PolicyTexts, Progress
from monitor.policy.files.examples import Label
from monitor.policy.files.occurrences import Document
from monitor.policy.files.source import Source
from monitor.policy.fit.evaluation import SourceTexts
from monitor.policy.fit.readings import Floats, TextReadings
from monitor.policy.fit.rule_scorers import RuleScorer
from monitor.policy.report import Group, Heat, PolicyReport, PolicySetReport, Scores, Token

LONGEST = 90
"""Tokens of a text that are shown."""


@dataclass(frozen=True)
class ScoredTexts:
    """Texts of one kind under one rule."""

    source: str
    texts: Sequence[Document]
    read: TextReadings
    shares: Floats
    """`[texts]`: highest pooled score as a share of the threshold that held there."""


def build_report(
    evaluator: PolicyEvaluator,
    data: DataFolder | None,
    *,
    rows: int,
    texts: int,
    show: int,
    title: str,
    progress: Progress | None = None,
) -> PolicySetReport:
    """Everything that the page shows, with at most `show` texts of each kind.

    Without `data` these are the policies' cards, and their own examples.
    """
    pages: dict[str, tuple[list[Scores], list[Group]]] = {}

    def watch(seen: PolicyTexts) -> None:
        pages[seen.source.model.metadata.name] = _shown(evaluator, seen, show)

    if data is not None:
        found = evaluator.run(data, rows, texts, watcher=watch, progress=progress)
    else:
        found = evaluator.cards()
        for source in evaluator.locked():
            ready = evaluator.trials(source)
            if ready:
                watch(PolicyTexts(source, ready[0], (), (), TextReadings.empty()))
    return _report(evaluator, found, pages, title, data is not None)


def _report(
    evaluator: PolicyEvaluator,
    found: PolicyEvaluation,
    pages: dict[str, tuple[list[Scores], list[Group]]],
    title: str,
    measured: bool,
) -> PolicySetReport:
    resolved = {policy.name: policy for policy in evaluator.set.policies}
    made = []
    for source in evaluator.policies:
        name = source.model.metadata.name
        scores, groups = pages.get(name, ([], []))
        running = resolved[name]
        made.append(
            PolicyReport(
                policy=source.model,
                lock=source.lock,
                modes={rule.name: str(rule.mode) for rule in running.rules},
                maturity=running.maturity,
                sources=[r for r in found.sources if r.policy == name],
                rates=[r for r in found.rates if r.policy == name],
                scores=scores,
                groups=groups,
            )
        )
    return PolicySetReport(
        title, found.digests, made, [r for r in found.rates if r.policy == ANY], measured, found.notes
    )


def _shown(evaluator: PolicyEvaluator, seen: PolicyTexts, show: int) -> tuple[list[Scores], list[Group]]:
    """Scores and texts of one policy: of unseen sources where there are any, else of its own examples."""
    trial = seen.rule
    yes, no = (_of_sources(trial, seen.sources, label) for label in (1, 0))
    ordinary = [_scored(trial, "benign request", seen.requests, seen.read)] if seen.requests else []
    own = not yes
    if own:
        yes, no = (_own(evaluator, trial, seen.source, positive) for positive in (True, False))
    kinds = ("positives", "negatives") if not own else ("own positives", "own negatives")
    scores = [
        Scores(name, [float(s) for scored in several for s in scored.shares])
        for name, several in ((kinds[0], yes), (kinds[1], no), ("benign requests", ordinary))
    ]
    heat = _Heat(evaluator, trial)
    groups = [
        Group("Hits", "Positives on which the rule fires.", heat.pick(yes, show, fires=True)),
        Group(
            "Misses",
            "Positives on which it does not, the furthest from it last.",
            heat.pick(yes, show, fires=False),
        ),
        Group(
            "False alarms",
            "Texts without the concept on which it fires.",
            heat.pick([*no, *ordinary], show, fires=True),
        ),
    ]
    return scores, groups


def _of_sources(trial: RuleScorer, sources: Sequence[SourceTexts], label: int) -> list[ScoredTexts]:
    several = []
    for source in sources:
        which = np.flatnonzero(source.positive == label)
        if len(which):
            several.append(
                _scored(trial, source.name, [source.texts[int(i)] for i in which], source.read.take(which))
            )
    return several


def _own(evaluator: PolicyEvaluator, trial: RuleScorer, source: Source, positive: bool) -> list[ScoredTexts]:
    turns = evaluator.reader.takes_turns
    chosen = [e for e in source.examples if (e.label is Label.POSITIVE) == positive]
    texts = [document for example in chosen for document in example.occurrences(turns=turns)]
    return [_scored(trial, "own example", texts, evaluator.reader.read(texts))] if texts else []


def _scored(trial: RuleScorer, source: str, texts: Sequence[Document], read: TextReadings) -> ScoredTexts:
    return ScoredTexts(source, texts, read, np.asarray([trial.share(read, i) for i in range(len(read))]))


class _Heat:
    """Heat maps of texts under one rule."""

    def __init__(self, evaluator: PolicyEvaluator, trial: RuleScorer) -> None:
        self._evaluator, self._trial = evaluator, trial

    def pick(self, several: Sequence[ScoredTexts], most: int, *, fires: bool) -> list[Heat]:
        """Evenly spread over the ranks of all that fire (or do not), the highest first; no choice by looks."""
        found = [(float(scored.shares[i]), scored, i) for scored in several for i in range(len(scored.texts))]
        found = sorted((f for f in found if (f[0] >= 1) == fires), key=lambda f: -f[0])
        places = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
        return [self._heat(scored, i, share) for share, scored, i in (found[p] for p in places)]

    def _heat(self, scored: ScoredTexts, text: int, share: float) -> Heat:
        pair = self._evaluator.reader.pair
        pieces = pair.speller.pieces(self._evaluator.reader.ids(scored.texts[text]))
        scores = self._trial.tokens(scored.read, text)
        if scored.read.positions is not None:
            starts = scored.read.tokens.starts
            pieces = [pieces[at] for at in scored.read.positions[starts[text] : starts[text + 1]]]
        tokens = [Token(piece, float(score)) for piece, score in zip(pieces, scores, strict=False)]
        peak = int(np.argmax(self._trial.course(scored.read, text))) if len(scores) else 0
        start = max(0, min(peak - LONGEST // 2, len(tokens) - LONGEST))
        return Heat(scored.source, tokens[start : start + LONGEST], share)
