"""Two policy sets on the same texts: which rules fire under one set alone, and whether that is more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from monitor.errors import InputError
from monitor.lab.data_folder import DataFolder
from monitor.lab.pair import Pair
from monitor.lab.policies import bound_elsewhere, load_set, running_of
from monitor.lab.readings import PairReader
from monitor.lab.texts import read_texts
from monitor.policy.files.examples import read_examples
from monitor.policy.files.loader import read_folder
from monitor.policy.files.occurrences import Kind, one_occurrence
from monitor.policy.files.source import Running
from monitor.policy.fit.readings import TextReadings
from monitor.policy.fit.rule_scorers import columns
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Phase, TokenBlock

VERDICT = "verdict"
"""Stands for the action of the whole set where rules are named."""
EXAMPLES = ".examples.jsonl"
"""How the examples of a policy are called; their labels are words."""


@dataclass(frozen=True)
class SourcedTexts:
    """Texts, and the name of the source of each."""

    texts: Sequence[str]
    sources: Sequence[str]


@dataclass(frozen=True, slots=True)
class SetOutcome:
    """What a policy set made of one text."""

    fired: frozenset[str]
    """`policy/rule` of every detection, in shadow or not."""
    action: Action
    """The strongest action of enforced rules."""


@dataclass(frozen=True, slots=True)
class RuleFlips:
    """One rule under both sets, or the verdict of both."""

    rule: str
    in_a: bool
    in_b: bool
    """Whether the set has the rule at all."""
    both: int
    only_a: tuple[int, ...]
    """Texts on which it fires under the first set alone."""
    only_b: tuple[int, ...]
    neither: int

    @property
    def flips(self) -> int:
        """Texts on which the sets disagree."""
        return len(self.only_a) + len(self.only_b)

    @property
    def p_value(self) -> float:
        """How likely a split of the flips as uneven as this is where neither set fires more (McNemar, exact)."""
        return mcnemar(len(self.only_a), len(self.only_b))


@dataclass(frozen=True, slots=True)
class SetComparison:
    """All rules, those that flip most often first, and the verdicts."""

    texts: int
    verdict: RuleFlips
    """Whether any enforced rule acts."""
    changes: tuple[RuleFlips, ...]
    actions: tuple[tuple[Action, Action, int], ...]
    """(first set's action, second set's action, texts), where they differ."""


@dataclass(frozen=True)
class ComparedSets:
    """The texts with where they come from, and what two sets made of them."""

    texts: Sequence[str]
    sources: Sequence[str]
    digests: tuple[str, str]
    result: SetComparison
    notes: tuple[str, ...] = ()
    """Which policies were not compared, and which files were not read, and why."""


def compare_folders(
    pair: Pair,
    a: Path,
    b: Path,
    on: SourcedTexts,
    phase: Phase,
    progress: Callable[[str], None],
) -> ComparedSets:
    """Two folders of policies on the same texts. PolicyError where a policy is wrong or does not fit the pair."""
    running = running_of(pair)
    sets = [load_set(folder, running) for folder in (a, b)]
    reader = PairReader(pair, {signal for policies in sets for signal in policies.watch.signals})
    progress(f"reading {len(on.texts)} texts")
    reader.tell = progress
    kind = Kind.REQUEST if phase is Phase.PROMPT else Kind.RESPONSE
    read = reader.read([one_occurrence(text, kind, turns=reader.takes_turns) for text in on.texts])
    first, second = (outcomes(policies, read, phase) for policies in sets)
    result = compare(first, second, *(_rules(policies) for policies in sets))
    notes = [note for name, folder in (("A", a), ("B", b)) for note in _left_out(name, folder, running)]
    return ComparedSets(on.texts, on.sources, (sets[0].digest, sets[1].digest), result, tuple(notes))


def file_texts(path: Path) -> SourcedTexts:
    """All texts of a file, or of the examples of a policy; InputError where it holds none."""
    if path.name.endswith(EXAMPLES):
        found = [example.text for example in read_examples(path)]
    else:
        found = [row.text for row in read_texts(path) if row.text.strip()]
    return SourcedTexts(found, [path.name] * len(found))


def folder_texts(data: DataFolder, rows: int) -> SourcedTexts:
    """At most so many unseen rows of each labelled source of a folder; InputError where there are none."""
    named = [(source.name, data.held_out(source, rows)) for source in (*data.sources, *data.benign)]
    pairs = [(row.text, name) for name, kept in sorted(named, key=lambda pair: pair[0]) for row in kept]
    if not pairs:
        raise InputError(f"{data.folder} holds no rows that no fit has read; give a smaller --train-fraction")
    return SourcedTexts([text for text, _ in pairs], [name for _, name in pairs])


def outcomes(policies: PolicySet, read: TextReadings, phase: Phase) -> list[SetOutcome]:
    """Detections and action of each text, as the running rules give them."""
    return [_outcome(policies, columns(read, text, policies.watch), phase) for text in range(len(read))]


def _outcome(policies: PolicySet, rows: NDArray[np.float32], phase: Phase) -> SetOutcome:
    decision = policies.start(str).observe(TokenBlock(phase, 0, tuple(range(len(rows))), rows))
    return SetOutcome(frozenset(f"{d.policy}/{d.rule}" for d in decision.detections), decision.action)


def _left_out(name: str, folder: Path, running: Running) -> Iterator[str]:
    """The policies of set `name` that do not apply to the model that reads."""
    for source in read_folder(folder, None):
        if where := bound_elsewhere(source, running):
            yield f"{source.model.metadata.name} of {name}: {where}; not compared on this model"


def _rules(policies: PolicySet) -> set[str]:
    return {f"{policy.name}/{rule.name}" for policy in policies.policies for rule in policy.rules}


def compare(
    a: Sequence[SetOutcome], b: Sequence[SetOutcome], rules_a: set[str], rules_b: set[str]
) -> SetComparison:
    """Both sets on the same texts, in the same order; `rules_a` and `rules_b` name every rule of each."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} outcomes cannot be compared with {len(b)}")
    changes = [
        _change(
            rule, rule in rules_a, rule in rules_b, [rule in o.fired for o in a], [rule in o.fired for o in b]
        )
        for rule in sorted(rules_a | rules_b)
    ]
    pairs = [(x.action, y.action) for x, y in zip(a, b, strict=True) if x.action != y.action]
    return SetComparison(
        texts=len(a),
        verdict=_change(VERDICT, True, True, [_acts(o) for o in a], [_acts(o) for o in b]),
        changes=tuple(sorted(changes, key=lambda change: -change.flips)),
        actions=tuple((x, y, pairs.count((x, y))) for x, y in sorted(set(pairs))),
    )


def mcnemar(one: int, other: int) -> float:
    """Two-sided exact p-value of `one` against `other` discordant pairs: a fair coin tossed `one + other` times."""
    tosses = one + other
    tail = sum(math.comb(tosses, i) for i in range(min(one, other) + 1))
    return min(1.0, 2 * tail / (1 << tosses))


def _acts(outcome: SetOutcome) -> bool:
    return outcome.action > Action.ALLOW


def _change(rule: str, in_a: bool, in_b: bool, a: Sequence[bool], b: Sequence[bool]) -> RuleFlips:
    pairs = list(zip(a, b, strict=True))
    return RuleFlips(
        rule=rule,
        in_a=in_a,
        in_b=in_b,
        both=sum(x and y for x, y in pairs),
        only_a=tuple(i for i, (x, y) in enumerate(pairs) if x and not y),
        only_b=tuple(i for i, (x, y) in enumerate(pairs) if y and not x),
        neither=sum(not x and not y for x, y in pairs),
    )
