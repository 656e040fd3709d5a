"""The whole measurement of what a policy's suppression does and costs, over targets and beside its rivals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monitor.dictionary.packed_text import plain
from monitor.errors import InputError, NotFound, PolicyError
from monitor.lab.cost.advice import advise
from monitor.lab.cost.edits import RIVALS, difference_of_means, rival, ways
from monitor.lab.cost.equal_kl import EqualKl, compare_at_equal_kl
from monitor.lab.cost.meter import CostInputs, Measured, Meter, WordClassifier, learn_classifier
from monitor.lab.cost.minimal_pairs import PairTest, read_pairs
from monitor.lab.cost.readers import HeldOutProbe, endings, learn_probe, means_of
from monitor.lab.cost.report import CostReport
from monitor.lab.cost.texts import CostTexts, cost_texts, spread
from monitor.lab.data_folder import DataFolder
from monitor.lab.pair import Pair
from monitor.lab.policies import named_policy, running_of
from monitor.lab.texts import corpus_files, in_equal_shares
from monitor.policy.files.loader import read_folder
from monitor.policy.policy import Policy
from monitor.records import LARGEST_TARGET

LONGEST = 64
"""Tokens that are read of a text."""
EXCERPT = 400
"""Characters of a benign excerpt."""


@dataclass(frozen=True)
class CostSizes:
    """The sizes of a measurement of cost."""

    prompts: int
    """Beginnings of held-out positives that are continued."""
    head: int
    """Tokens of a beginning, the start token included."""
    new: int
    """Tokens that are written behind each."""
    positives: int
    """Held-out positives that are read under each edit."""
    benign: int
    """Benign texts that are read under each edit."""
    temperature: float
    seed: int
    each: int = 5
    """Minimal pairs of every paradigm."""


@dataclass(frozen=True)
class CostStudy:
    """What is measured: a policy of a folder, targets to try, and the texts to try them on."""

    folder: Path
    name: str
    targets: Sequence[float]
    """In units of the features' maxima, all 0 or below."""
    sizes: CostSizes
    budget: float
    """Rise of benign perplexity that may be recommended."""
    data: DataFolder | None = None
    """Labelled texts; without any, the policy's own examples."""
    benign: Sequence[Path] = ()
    """Files of benign texts; without any, the folder's `benign.jsonl`."""
    minimal_pairs: Path | None = None
    """A file of minimal pairs; without it, grammar is not measured."""
    only: Sequence[str] = ()
    """Names of the edits to measure; all where it is empty."""

    def check(self) -> None:
        """NotFound or PolicyError where no such policy suppresses anything, InputError where a target is above 0."""
        if not all(-LARGEST_TARGET <= target <= 0 for target in self.targets):
            raise InputError(
                f"a policy suppresses; write targets of 0 and below, down to {-LARGEST_TARGET:g}, e.g. --target -1"
            )
        sources = {source.model.metadata.name: source for source in read_folder(self.folder, None)}
        if self.name not in sources:
            raise NotFound(f"no policy called {self.name}; there are {', '.join(sorted(sources))}")
        if sources[self.name].model.suppress is None:
            raise PolicyError(f"`{self.name}` has no `suppress:` section; there is nothing to measure")
        if self.minimal_pairs is not None:
            read_pairs(self.minimal_pairs, self.sizes.each)

    def run(self, pair: Pair, progress: Callable[[str], None]) -> CostReport:
        """Measure every edit at every target. InputError where there are too few texts."""
        source, policy = named_policy(self.folder, self.name, running_of(pair))
        calm = [text[:EXCERPT] for text in _first(self.benign, 4 * self.sizes.benign)]
        found = cost_texts(source, self.data, calm)
        progress("learning a judge")
        meter, told = _meter(pair, policy, found, self.sizes, self.minimal_pairs)
        direction = _direction(pair, found, self.sizes)
        measured: list[Measured] = []
        for way in ways(pair, policy, direction, self.targets, self.only):
            progress(f"{way.name} at {way.strength:g}")
            measured.append(meter.measure(way.name, way.strength, way.edit))
        points = [one.point for one in measured]
        rivals = {name: partial(rival, pair, name, direction) for name in self._rivals()}
        equal: list[EqualKl] = []
        for comparison, point in compare_at_equal_kl(meter, measured, rivals, progress):
            equal.append(comparison)
            points.append(point)
        return CostReport(
            policy=policy.name,
            model=pair.loaded.digest,
            dictionary=pair.dictionary.digest,
            points=tuple(points),
            advice=advise(points, self.budget),
            written=policy.clamps[0].target,
            texts=told,
            equal_kl=tuple(equal),
        )

    def _rivals(self) -> list[str]:
        return [name for name in RIVALS if not self.only or name in self.only]


def suppressing(folder: Path) -> list[str]:
    """Names of the policies of a folder that suppress something; PolicyError where there are none."""
    names = [s.model.metadata.name for s in read_folder(folder, None) if s.model.suppress is not None]
    if not names:
        raise PolicyError(f"no policy in {folder} has a `suppress:` section; there is nothing to measure")
    return sorted(names)


def _classifier(pair: Pair, texts: CostTexts, sizes: CostSizes) -> WordClassifier:
    """Learnt from what stands where a continuation would."""
    ending = [(row, _ending(pair, row.text, sizes)) for row in texts.taught]
    taught = [(row, text) for row, text in ending if text.strip()]
    calm = [_ending(pair, text, sizes) for text in texts.benign]
    return learn_classifier(
        [text for _, text in taught],
        [row.positive for row, _ in taught],
        [row.group for row, _ in taught],
        [text for text in calm if text.strip()],
    )


def _probe(pair: Pair, texts: CostTexts, sizes: CostSizes) -> HeldOutProbe:
    """Learnt from the residuals where a continuation would stand, as the unedited model has them."""
    whole = [(row.text, row.positive, row.group) for row in texts.taught]
    whole += [(text, False, f"benign {number}") for number, text in enumerate(texts.benign)]
    ids = [pair.ids(text)[: sizes.head + sizes.new] for text, _, _ in whole]
    long = [i for i, own in enumerate(ids) if len(own) > sizes.head]
    rows = endings(pair, [ids[i] for i in long], [sizes.head] * len(long))
    kept = [(i, x) for i, x in zip(long, rows, strict=True) if len(x)]
    positive = np.asarray([whole[i][1] for i, _ in kept])
    return learn_probe(means_of([x for _, x in kept]), positive, [whole[i][2] for i, _ in kept])


def _meter(
    pair: Pair, policy: Policy, texts: CostTexts, sizes: CostSizes, minimal_pairs: Path | None
) -> tuple[Meter, dict[str, Any]]:
    classifier, probe = _classifier(pair, texts, sizes), _probe(pair, texts, sizes)
    pairs = None if minimal_pairs is None else PairTest(pair, read_pairs(minimal_pairs, sizes.each))
    positives = spread([row for row in texts.measured if row.positive], 10**6)
    ids = [pair.ids(row.text)[:LONGEST] for row in positives]
    heads = [own[: sizes.head] for own in ids if len(own) > sizes.head][: sizes.prompts]
    if len(heads) < min(sizes.prompts, 20):
        raise InputError(
            f"{len(heads)} held-out positives are longer than {sizes.head} tokens; give more texts"
        )
    prepared = CostInputs(
        positives=[own for own in ids if len(own) > 2][: sizes.positives],
        prompts=torch.tensor(heads),
        benign=[own for text in texts.benign if len(own := pair.ids(text)[:LONGEST]) > 2][: sizes.benign],
        new=sizes.new,
        temperature=sizes.temperature,
        seed=sizes.seed,
    )
    told = {
        "prompts": len(heads),
        "new": sizes.new,
        "temperature": sizes.temperature,
        "positives": len(prepared.positives),
        "benign": len(prepared.benign),
        "judge_texts": classifier.texts,
        "judge_auroc": classifier.auroc,
        "judge_false": classifier.false_positives,
        "probe_auroc": probe.auroc,
        "minimal_pairs": 0 if pairs is None else len(pairs),
        "held_out": texts.held_out,
        "note": texts.note,
    }
    return Meter(pair, policy, prepared, classifier, probe, pairs), told


def _direction(pair: Pair, texts: CostTexts, sizes: CostSizes) -> torch.Tensor:
    sides = []
    for positive in (True, False):
        rows = spread([row for row in texts.learnt if row.positive is positive], 4 * sizes.positives)
        sides.append([own for row in rows if len(own := pair.ids(row.text)[:LONGEST]) > 1])
    return difference_of_means(pair, *sides)


def _ending(pair: Pair, text: str, sizes: CostSizes) -> str:
    """What stands where a continuation would."""
    ids = pair.ids(text)[sizes.head : sizes.head + sizes.new]
    return str(pair.loaded.tokenizer.decode(ids, skip_special_tokens=True))


def _first(files: Sequence[Path], count: int) -> list[str]:
    found: list[str] = []
    if files:
        for text in in_equal_shares(corpus_files(files), EXCERPT):
            found.append(plain(text))
            if len(found) == count:
                break
    return found
