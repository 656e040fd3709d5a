"""`sae-monitor policy report`: one HTML page about a policy set.

Knows options, and how readings become what the page shows. Does not know markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from monitor.cli.options import DeviceOption, DictionaryOption, FormatOption, ModelOption
from monitor.cli.output import writable, write_text
from monitor.cli.policy.evaluate import ANY, Evaluation, Evaluator, RowsOption, TextsOption
from monitor.cli.show.console import stderr_console
from monitor.policy.files.examples import Label
from monitor.policy.files.source import Source
from monitor.policy.fit.evaluation import SourceTexts
from monitor.policy.fit.readings import Floats, TextReadings
from monitor.policy.fit.rule_scorers import RuleScorer
from monitor.policy.report import Group, Heat, PolicyReport, PolicySetReport, Scores, Token, page

LONGEST = 90
"""Tokens of a text that are shown."""


@dataclass(frozen=True)
class Pile:
    """Texts of one kind under one rule."""

    source: str
    texts: Sequence[str]
    read: TextReadings
    shares: Floats
    """`[texts]`: highest pooled score as a share of the threshold that held there."""


def report(
    policies: Annotated[Path, typer.Argument(help="Folder of fitted policies.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write.")] = Path(
        "policies.html"
    ),
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Folder with labelled/CONCEPT/SOURCE.jsonl and corpus/*.jsonl.xz."),
    ] = None,
    model: ModelOption = None,
    dictionary: DictionaryOption = None,
    dictionary_format: FormatOption = None,
    rows: RowsOption = 200,
    texts: TextsOption = 200,
    show: Annotated[int, typer.Option(min=0, max=50, help="Texts to show of each kind.")] = 4,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Policy report",
    device: DeviceOption = "auto",
) -> None:
    """Write one self-contained HTML page: cards, curves, per-source tables, and token heat maps of hits and misses.

    With `--data` everything is measured on texts that no fit has seen; without, the page shows cards and the
    policies' own examples.
    """
    writable(output)
    evaluator = Evaluator(policies, data or policies, (model, dictionary, device, dictionary_format))
    pages: dict[str, tuple[list[Scores], list[Group]]] = {}

    def seen(
        source: Source,
        trial: RuleScorer,
        sources: Sequence[SourceTexts],
        benign: Sequence[str],
        read: TextReadings,
    ) -> None:
        pages[source.model.metadata.name] = _shown(evaluator, source, trial, sources, (benign, read), show)

    if data is not None:
        found = evaluator.run(rows, texts, seen)
    else:
        found = evaluator.cards()
        for source in evaluator.locked():
            ready = evaluator.trials(source)
            if ready:
                seen(source, ready[0], (), (), TextReadings.empty())
    write_text(output, page(_report(evaluator, found, pages, title, data is not None)))
    stderr_console().print(f"{output} written ({output.stat().st_size // 1024} KiB)", soft_wrap=True)


def _report(
    evaluator: Evaluator,
    found: Evaluation,
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


def _shown(
    evaluator: Evaluator,
    source: Source,
    trial: RuleScorer,
    sources: Sequence[SourceTexts],
    benign: tuple[Sequence[str], TextReadings],
    show: int,
) -> tuple[list[Scores], list[Group]]:
    """Scores and texts of one policy: of unseen sources where there are any, else of its own examples."""
    yes, no = (_piles(trial, sources, label) for label in (1, 0))
    ordinary = [_pile(trial, "benign request", *benign)] if len(benign[0]) else []
    own = not yes
    if own:
        yes, no = (_own(evaluator, trial, source, positive) for positive in (True, False))
    kinds = ("positives", "negatives") if not own else ("own positives", "own negatives")
    scores = [
        Scores(name, [float(s) for pile in piles for s in pile.shares])
        for name, piles in ((kinds[0], yes), (kinds[1], no), ("benign requests", ordinary))
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


def _piles(trial: RuleScorer, sources: Sequence[SourceTexts], label: int) -> list[Pile]:
    piles = []
    for source in sources:
        which = np.flatnonzero(source.positive == label)
        if len(which):
            piles.append(
                _pile(trial, source.name, [source.texts[int(i)] for i in which], source.read.take(which))
            )
    return piles


def _own(evaluator: Evaluator, trial: RuleScorer, source: Source, positive: bool) -> list[Pile]:
    texts = [e.text for e in source.examples if (e.label is Label.POSITIVE) == positive]
    return [_pile(trial, "own example", texts, evaluator.reader.read(texts))] if texts else []


def _pile(trial: RuleScorer, source: str, texts: Sequence[str], read: TextReadings) -> Pile:
    return Pile(source, texts, read, np.asarray([trial.share(read, i) for i in range(len(read))]))


class _Heat:
    """Makes heat maps of the texts of piles."""

    def __init__(self, evaluator: Evaluator, trial: RuleScorer) -> None:
        self._evaluator, self._trial = evaluator, trial

    def pick(self, piles: Sequence[Pile], most: int, *, fires: bool) -> list[Heat]:
        """Evenly spread over the ranks of all that fire (or do not), the highest first; no choice by looks."""
        found = [(float(pile.shares[i]), pile, i) for pile in piles for i in range(len(pile.texts))]
        found = sorted((f for f in found if (f[0] >= 1) == fires), key=lambda f: -f[0])
        places = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
        return [self._heat(pile, i, share) for share, pile, i in (found[p] for p in places)]

    def _heat(self, pile: Pile, text: int, share: float) -> Heat:
        pair = self._evaluator.reader.pair
        ids = self._evaluator.reader.ids(pile.texts[text])[1:]
        scores = self._trial.tokens(pile.read, text)
        pieces = pair.speller.pieces(ids)
        tokens = [Token(piece, float(score)) for piece, score in zip(pieces, scores, strict=False)]
        peak = int(np.argmax(self._trial.course(pile.read, text))) if len(scores) else 0
        start = max(0, min(peak - LONGEST // 2, len(tokens) - LONGEST))
        return Heat(pile.source, tokens[start : start + LONGEST], share)
