"""How well the model's own answers are told apart: by shipped locks, by baselines, by detectors fitted to them.

What is judged is the answer, behind its plain question. Words are given the answer alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from monitor.lab.data_folder import DataFolder, open_data
from monitor.lab.pair import Pair
from monitor.lab.policy_evaluation import PolicyEvaluator
from monitor.lab.texts import LabelledText
from monitor.policy.files.benign import read_benign_kinds
from monitor.policy.files.examples import BENIGN_FILE, Example
from monitor.policy.files.lock import Separation
from monitor.policy.files.occurrences import Document, Kind, answers, kind_called, one_occurrence, plain
from monitor.policy.files.source import Source
from monitor.policy.fit.cross_validation import folds, learnt_scores
from monitor.policy.fit.detectors import Recipe
from monitor.policy.fit.evaluation import RuleOnSource, SourceTexts, on_sources
from monitor.policy.fit.metrics import ResampledSeparation, Truth, difference, measure_all
from monitor.policy.fit.readings import join_texts
from monitor.policy.fit.rows import FitRows, LabelledTexts, ReadTexts, read_rows
from monitor.policy.fit.rule_scorers import RuleScorer
from monitor.recipes.smollm2.generations.speech import BENIGN

FEATURES = 64
"""Most features of a detector that is fitted to the answers."""
EVERY = 100_000
"""More rows than a file has."""
SHIPPED = {
    "policy": "the rule",
    "probe": "probe",
    "linear_probe": "linear probe",
    "difference_of_means": "diff. of means",
    "bag_of_words": "words",
}
"""What is compared on the examples that the locks were fitted to, and how the table calls it."""
FITTED = {
    "features": "features",
    "probe": "probe",
    "combined": "both",
    "linear_probe": "linear probe",
    "difference_of_means": "diff. of means",
    "bag_of_words": "words",
}
"""The same of what is fitted to the answers themselves, in five folds of questions."""


@dataclass(frozen=True)
class OwnSpeech:
    """How detectors do on one file of what the model said, or was asked."""

    policy: str
    file: str
    shipped: RuleOnSource
    benign_fired: float
    """Share of the benign texts on which the rule fires."""
    benign: int
    """Number of benign texts."""
    fitted: Mapping[str, ResampledSeparation]
    """By method, detectors that learnt from four folds of these rows and of the benign texts, on the fifth."""

    def gain(self, method: str) -> tuple[float, float, float]:
        """AUROC of a fitted method less that of fitted words, with the interval's ends."""
        found = difference(self.fitted[method], self.fitted["bag_of_words"])
        return found.auroc, found.auroc_low, found.auroc_high


class SpeechMeter:
    """Measures a folder of generations by the policies of another folder."""

    def __init__(
        self, pair: Pair, policies: Path, generations: Path, extra: DataFolder | None = None, seed: int = 0
    ) -> None:
        """`extra` has the rows that the locks learnt from beside their examples; None where there were none."""
        self._evaluator = PolicyEvaluator(pair, policies)
        self.reader, self.policies = self._evaluator.reader, self._evaluator.policies
        self._place, self._folder = policies, open_data(generations)
        self._extra, self._seed = extra, seed

    def run(self) -> Iterator[OwnSpeech]:
        """One result for each file about a policy, in the order of the policies."""
        for source in self.policies:
            taught: FitRows | None = None
            for own, said in self.files(source):
                taught = taught or self.taught(source, source.examples)
                yield self._measured(self.rule(source), taught, own, said=said)

    def files(self, source: Source) -> Iterator[tuple[SourceTexts, bool]]:
        """The texts of each file about a policy, and whether they are answers."""
        for file in self._folder.sources:
            if file.concept == source.model.metadata.name:
                rows = self._folder.held_out(file, EVERY)
                yield self._source_texts(rows, file.name), _answered(rows[0].kind)

    def rule(self, source: Source) -> RuleScorer:
        """The policy's first rule, as its lock has it."""
        return self._evaluator.trials(source)[0]

    def _measured(self, rule: RuleScorer, taught: FitRows, own: SourceTexts, *, said: bool) -> OwnSpeech:
        benign = self.benign[said]
        fired = rule.fired(benign.read)
        recipe = Recipe((rule.how,), FEATURES, self._seed, signed=True)
        return OwnSpeech(
            rule.policy,
            own.name,
            on_sources(rule, taught, [own], benign.read, benign.texts, self._seed)[0],
            float(fired.mean()),
            len(fired),
            fitted_to(own, benign, recipe),
        )

    @cached_property
    def benign(self) -> dict[bool, SourceTexts]:
        """Benign answers (True) and benign requests (False)."""
        rows = [row for file in self._folder.benign for row in self._folder.held_out(file, EVERY)]
        return {
            said: self._source_texts([row for row in rows if _answered(row.kind) is said], BENIGN)
            for said in (True, False)
        }

    def _source_texts(self, rows: Sequence[LabelledText], name: str) -> SourceTexts:
        met = [self._met(row.text, kind_called(row.kind)) for row in rows]
        labels = np.asarray([bool(row.label) for row in rows], np.intp)
        words = [judged(document) for document in met]
        return SourceTexts(name, words, self.reader.read(met), labels, [row.group for row in rows])

    def taught(self, source: Source, examples: Sequence[Example]) -> FitRows:
        """What a policy with these examples is fitted to, but further benign texts."""
        meta = source.model.metadata
        extra = self._extra.extra_rows(meta.name, meta.category) if self._extra else LabelledTexts()
        return read_rows(self.reader, examples, self._learnt_benign, extra)

    @cached_property
    def _learnt_benign(self) -> ReadTexts:
        """The benign texts of the policies' folder."""
        kinds = read_benign_kinds(self._place / BENIGN_FILE)
        benign = [self._met(text, kind) for text, kind in kinds.items()]
        return ReadTexts(benign, self.reader.read(benign))

    def _met(self, text: str, kind: Kind) -> Document:
        return one_occurrence(text, kind, turns=self.reader.takes_turns)


def judged(document: Document) -> str:
    """What is judged of a document: of a conversation that ends in an answer that answer, otherwise all of it."""
    if not isinstance(document, str) and answers(document):
        return document[-1]["content"]
    return plain(document)


def fitted_to(own: SourceTexts, benign: SourceTexts, recipe: Recipe) -> dict[str, ResampledSeparation]:
    """Every method, learnt from four folds of the rows and of the benign texts, and measured on the fifth."""
    counts = len(own.texts), len(benign.texts)
    names = [f"own {group}" for group in own.groups] + [f"benign {i}" for i in range(counts[1])]
    total = sum(counts)
    rows = FitRows(
        documents=[*own.texts, *benign.texts],
        read=join_texts([own.read, benign.read]),
        positive=np.concatenate([own.positive, np.zeros(counts[1], np.intp)]),
        groups=np.unique(names, return_inverse=True)[1].astype(np.intp),
        measured=np.ones(total, np.intp),
        own=np.repeat([1, 0], counts),
        hard=np.zeros(total, np.intp),
        importance=np.ones(total),
    )
    found = {name: np.full(total, np.nan) for name in FITTED}
    for held in folds(rows, recipe.seed):
        scores = learnt_scores(rows, np.setdiff1d(rows.everything, held), held, recipe)
        for name in FITTED:
            found[name][held] = scores[name]
    truth = Truth(rows.positive, rows.own, rows.hard, rows.groups)
    return measure_all(found, truth, recipe.seed)


def shipped_table(results: Sequence[OwnSpeech]) -> str:
    """What ships, beside baselines that learnt from the same examples, in Markdown."""
    head = f"| {' | '.join(['file', '+ / −', *SHIPPED.values(), 'caught', 'fired on −', 'on benign'])} |"
    lines = [head, "|---" * (len(SHIPPED) + 5) + "|"]
    for result in results:
        found = result.shipped
        cells = [result.file, f"{found.positive} / {found.negative}"]
        cells += [_cell(found.methods[name]) for name in SHIPPED]
        cells += [f"{found.caught:.0%}", f"{found.fired or 0.0:.0%}"]
        lines.append(f"| {' | '.join(cells)} | {result.benign_fired:.1%} of {result.benign} |")
    return "\n".join(lines)


def fitted_table(results: Sequence[OwnSpeech]) -> str:
    """Detectors that were fitted to the answers themselves, in Markdown."""
    head = f"| {' | '.join(['file', *FITTED.values(), 'AUROC, probe − words'])} |"
    lines = [head, "|---" * (len(FITTED) + 2) + "|"]
    for result in results:
        cells = [result.file, *(_cell(result.fitted[name].measure) for name in FITTED)]
        lines.append(
            f"| {' | '.join(cells)} | {'{:+.2f} ({:+.2f} to {:+.2f})'.format(*result.gain('probe'))} |"
        )
    return "\n".join(lines)


def as_record(results: Sequence[OwnSpeech]) -> str:
    """All numbers as JSON."""
    rows = [
        {
            "policy": one.policy,
            "file": one.file,
            "positive": one.shipped.positive,
            "negative": one.shipped.negative,
            "caught": one.shipped.caught,
            "fired": one.shipped.fired,
            "benign_fired": one.benign_fired,
            "benign": one.benign,
            "shipped": {name: one.shipped.methods[name].model_dump() for name in SHIPPED},
            "fitted": {name: found.measure.model_dump() for name, found in one.fitted.items()},
            "probe_above_words": one.gain("probe"),
        }
        for one in results
    ]
    return json.dumps(rows, indent=1) + "\n"


def _answered(kind: str) -> bool:
    return kind_called(kind) is Kind.RESPONSE


def _cell(found: Separation) -> str:
    return (
        f"{found.auroc:.2f} ({found.auroc_low:.2f}–{found.auroc_high:.2f}) / "
        f"{found.recall:.0%} ({found.recall_low:.0%}–{found.recall_high:.0%})"
    )
