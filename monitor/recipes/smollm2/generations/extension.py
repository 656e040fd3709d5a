"""Whether examples out of what the model said make a policy's detectors better, before they are shipped.

Detectors learn with them and without them, from otherwise the same rows. Both are measured on the examples that people
wrote, by folds of groups, and on the answers and requests of the test questions, which no detector learns from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.errors import InputError
from monitor.policy.files.examples import Example
from monitor.policy.files.lock import Difference, Separation
from monitor.policy.files.occurrences import Kind
from monitor.policy.files.source import Source
from monitor.policy.fit.cross_validation import folds, learnt_scores
from monitor.policy.fit.detectors import Recipe
from monitor.policy.fit.evaluation import SourceTexts
from monitor.policy.fit.metrics import ResampledSeparation, Truth, difference, measure_all
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.readings import FitReader, Floats, Indices, join_texts
from monitor.policy.fit.rows import FitRows
from monitor.policy.schema.pooling import Ema, Max, Mean, TopKMean
from monitor.recipes.smollm2.generations.contrast import MOST
from monitor.recipes.smollm2.generations.detection import FEATURES, FITTED, SpeechMeter
from monitor.recipes.smollm2.generations.examples import Row, as_examples, by_hand, example_rows

WITHOUT, WITH = "without", "with"
HAND = "examples by hand"
"""How the table calls the examples that people wrote."""
HEAD = (
    f"| {' | '.join(['policy', 'added', 'measured on', *FITTED.values(), 'what ships: AUROC', 'recall'])} |"
)

Scores = dict[str, Floats]


@dataclass(frozen=True)
class ExtensionTrial:
    """One policy's detectors without and with the further examples, on one set of texts."""

    policy: str
    texts: str
    added: int
    """Number of further examples."""
    ships: str
    """The kind of detector in the policy's lock."""
    measured: Mapping[str, ResampledSeparation]
    """By `without METHOD` and `with METHOD`."""

    def before(self, method: str) -> Separation:
        """Without the further examples."""
        return self.measured[f"{WITHOUT} {method}"].measure

    def after(self, method: str) -> Separation:
        """With them."""
        return self.measured[f"{WITH} {method}"].measure

    def gain(self, method: str) -> Difference:
        """With them less without them, on the same resamples of groups."""
        return difference(self.measured[f"{WITH} {method}"], self.measured[f"{WITHOUT} {method}"])


class ExtensionMeter:
    """Tries what `generations --questions examples` wrote on what the test questions brought."""

    def __init__(self, meter: SpeechMeter, said: Path, seed: int = 0, most: int = MOST) -> None:
        """`meter` has the answers to the test questions, `said` is the folder of the others.

        At most so many answers of each side are taken of a question.
        """
        self._meter, self._said, self._seed, self._most = meter, said, seed, most

    def run(self, only: Sequence[str] = (), pooling: RulePooling | None = None) -> Iterator[ExtensionTrial]:
        """For each policy with further examples a result on the examples by hand, then one for each test file.

        `pooling` takes the place of the rule's own.
        """
        for source in self._meter.policies:
            name = source.model.metadata.name
            rows = example_rows(name, self._said, self._most)
            if rows and (not only or name in only):
                yield from self._tried(source, rows, pooling)

    def _tried(
        self, source: Source, added: Sequence[Row], pooling: RulePooling | None
    ) -> Iterator[ExtensionTrial]:
        concept, meter = source.model.concept, self._meter
        assert concept is not None
        more = as_examples(added, Kind(concept.kind or Kind.STATEMENT))
        base = meter.taught(source, by_hand(source.examples))
        tests = [(file, meter.benign[said]) for file, said in meter.files(source)]
        rows = _joined(base, meter.reader, more, [one for pair in tests for one in pair])
        recipe = Recipe((pooling or meter.rule(source).how,), FEATURES, self._seed, signed=True)
        taught = np.arange(len(base.documents))
        further = np.arange(
            len(taught), len(rows.documents) - sum(len(a.texts) + len(b.texts) for a, b in tests)
        )

        def result(name: str, scores: Scores, truth: Truth) -> ExtensionTrial:
            ships = source.lock.detector if source.lock is not None else "probe"
            found = measure_all(scores, truth, self._seed)
            return ExtensionTrial(source.model.metadata.name, name, len(added), ships, found)

        yield result(HAND, *_by_folds(rows, taught, further, recipe))
        start = int(further[-1]) + 1
        scores = _both(rows, taught, further, np.arange(start, len(rows.documents)), recipe)
        at = 0
        for file, calm in tests:
            end = at + len(file.texts) + len(calm.texts)
            mine = {name: found[at:end] for name, found in scores.items()}
            yield result(file.name, mine, _truth(rows, np.arange(start + at, start + end), len(file.texts)))
            at = end


def taught_with(meter: SpeechMeter, source: Source, said: Path) -> tuple[FitRows, FitRows]:
    """What a policy is fitted to, without the further examples and with them."""
    concept = source.model.concept
    assert concept is not None
    rows = example_rows(source.model.metadata.name, said)
    more = as_examples(rows, Kind(concept.kind or Kind.STATEMENT))
    base = meter.taught(source, by_hand(source.examples))
    return base, _joined(base, meter.reader, more, [])


def _by_folds(rows: FitRows, taught: Indices, further: Indices, recipe: Recipe) -> tuple[Scores, Truth]:
    """Scores of the examples by hand and the benign texts, each by detectors that never saw its group."""
    found: Scores = {}
    for held in folds(rows, recipe.seed):
        for name, scores in _both(rows, np.setdiff1d(taught, held), further, held, recipe).items():
            found.setdefault(name, np.full(len(rows.documents), np.nan))[held] = scores
    seen = np.flatnonzero(rows.measured == 1)
    truth = Truth(rows.positive[seen], rows.own[seen], rows.hard[seen], rows.groups[seen])
    return {name: scores[seen] for name, scores in found.items()}, truth


def _both(rows: FitRows, taught: Indices, further: Indices, held: Indices, recipe: Recipe) -> Scores:
    """Scores `[held]` by what learnt from the rows `taught`, without and with the rows `further`."""
    learnt = {WITHOUT: taught, WITH: np.concatenate([taught, further])}
    return {
        f"{name} {method}": scores
        for name, rest in learnt.items()
        for method, scores in learnt_scores(rows, rest, held, recipe).items()
    }


def _joined(
    base: FitRows, reader: FitReader, more: Sequence[Example], tests: Sequence[SourceTexts]
) -> FitRows:
    """The rows of a fit, behind them further examples and texts to be tested on, which no fold holds."""
    met = [(one, document) for one in more for document in one.occurrences(turns=reader.takes_turns)]
    added, asked = len(met), sum(len(test.texts) for test in tests)
    names = [one.group for one, _ in met] + [f"{n} {g}" for n, test in enumerate(tests) for g in test.groups]
    others = np.unique(names, return_inverse=True)[1].astype(np.intp) + base.groups.max() + 1
    return FitRows(
        documents=[
            *base.documents,
            *(document for _, document in met),
            *(t for one in tests for t in one.texts),
        ],
        read=join_texts(
            [base.read, reader.read([document for _, document in met]), *(one.read for one in tests)]
        ),
        positive=np.concatenate(
            [base.positive, [one.label == "positive" for one, _ in met], *(one.positive for one in tests)]
        ).astype(np.intp),
        groups=np.concatenate([base.groups, others]),
        measured=np.concatenate([base.measured, np.zeros(added + asked, np.intp)]),
        own=np.concatenate([base.own, np.ones(added, np.intp), np.zeros(asked, np.intp)]),
        hard=np.concatenate([base.hard, np.zeros(added + asked, np.intp)]),
        importance=np.concatenate([base.importance, np.ones(added + asked)]),
    )


def _truth(rows: FitRows, which: Indices, own: int) -> Truth:
    """Labels of a test file's rows, which come first, and of the benign texts behind them."""
    count = len(which)
    return Truth(
        rows.positive[which],
        np.repeat([1, 0], [own, count - own]),
        np.zeros(count, np.intp),
        rows.groups[which],
    )


def extension_table(results: Sequence[ExtensionTrial]) -> str:
    """AUROC / recall without the examples → with them, and what the shipped kind of detector gains, in Markdown."""
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for one in results:
        gain = one.gain(one.ships)
        cells = [one.policy, str(one.added), one.texts]
        cells += [f"{_short(one.before(name))} → {_short(one.after(name))}" for name in FITTED]
        cells += [
            f"{FITTED[one.ships]} {gain.auroc:+.3f} ({gain.auroc_low:+.3f} to {gain.auroc_high:+.3f})",
            f"{gain.recall:+.0%} ({gain.recall_low:+.0%} to {gain.recall_high:+.0%})",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written_pooling(text: str) -> RulePooling:
    """The pooling that `KIND:NUMBER` stands for, `max` without a number; InputError where it stands for none."""
    kind, _, number = text.partition(":")
    try:
        match kind:
            case "max":
                return RulePooling(Max())
            case "mean":
                return RulePooling(Mean(min_tokens=int(number)))
            case "top_k_mean":
                return RulePooling(TopKMean(k=int(number)))
            case "ema":
                return RulePooling(Ema(half_life=float(number)))
    except ValueError:
        pass
    raise InputError(f"{text!r} is no pooling; write max, mean:8, top_k_mean:8 or ema:12")


def as_record(results: Sequence[ExtensionTrial]) -> str:
    """All numbers as JSON."""
    rows = [
        {
            "policy": one.policy,
            "texts": one.texts,
            "added": one.added,
            "ships": one.ships,
            "measured": {name: found.measure.model_dump() for name, found in one.measured.items()},
            "gain": {name: one.gain(name).model_dump() for name in FITTED},
        }
        for one in results
    ]
    return json.dumps(rows, indent=1) + "\n"


def _short(found: Separation) -> str:
    return f"{found.auroc:.2f} / {found.recall:.0%}"
