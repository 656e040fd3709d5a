"""Policies measured on labelled and benign texts, beside a linear probe, a bag of words and other baselines."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monitor.errors import InputError
from monitor.lab.benign_texts import SPREAD, documents, excerpt
from monitor.lab.data_folder import FEWEST_ROWS, DataFolder, open_data
from monitor.lab.evaluation_results import ANY, PolicyEvaluation
from monitor.lab.pair import Pair
from monitor.lab.policies import bound_elsewhere, load_set, running_of
from monitor.lab.readings import PairReader
from monitor.policy.files.benign import read_benign_kinds
from monitor.policy.files.examples import BENIGN_FILE
from monitor.policy.files.loader import read_folder
from monitor.policy.files.occurrences import Document, Kind, kind_called, one_occurrence
from monitor.policy.files.source import Source
from monitor.policy.fit.evaluation import (
    CORPUS,
    REQUESTS,
    UNLIKE,
    BenignRate,
    RuleOnSource,
    SourceTexts,
    on_sources,
    rates,
    rates_of,
)
from monitor.policy.fit.lengths import EDGES
from monitor.policy.fit.readings import TextReadings
from monitor.policy.fit.rows import ReadTexts, read_rows
from monitor.policy.fit.rule_scorers import RuleScorer, RunningRuleScorer, locked_scorers, phase_of
from monitor.policy.fit.thresholds import poolings
from monitor.policy.policy import Policy, Rule
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.program import compile_program
from monitor.records import Signal

Progress = Callable[[str], None]
"""Is told what the evaluation is at, in words."""


@dataclass(frozen=True)
class PolicyTexts:
    """One policy with everything that it was put to, while it is in memory."""

    source: Source
    rule: RuleScorer
    """Its first rule, ready to score."""
    sources: Sequence[SourceTexts]
    requests: Sequence[Document]
    read: TextReadings
    """What was read of `requests`."""


Watcher = Callable[[PolicyTexts], None]
ROWS = 400
"""Rows of each labelled source that are measured on, unless somebody says otherwise."""


def evaluate(
    pair: Pair,
    policies: str | Path,
    data: str | Path | DataFolder,
    *,
    rows: int = ROWS,
    texts: int = 400,
    progress: Progress | None = None,
) -> PolicyEvaluation:
    """Separation the policies of a folder on labelled texts, and their false positives on benign ones.

    Args:
        pair: From `open_pair`; the policies must have been fitted to it.
        policies: A folder of policies with their locks.
        data: A folder as `open_data` reads it, or what `open_data` made of one.
        rows: Most rows of each labelled source, half of each label; of benign requests four times as many. With 0,
            false positives alone are counted.
        texts: Most texts of each benign corpus.
        progress: Is told what the evaluation is at.

    Raises:
        PolicyError: A policy is wrong, or does not fit the pair.
        InputError: The data cannot be read, or say nothing about these policies.
    """
    folder = data if isinstance(data, DataFolder) else open_data(data)
    return PolicyEvaluator(pair, Path(policies)).run(folder, rows, texts, progress=progress)


class PolicyEvaluator:
    """A pair and the policies of a folder that apply to it, ready to be put to texts."""

    def __init__(self, pair: Pair, policies: Path) -> None:
        self.folder = policies
        running = running_of(pair)
        everything = read_folder(policies, running)
        self.reader = PairReader(pair, signals_of(everything))
        self.set = load_set(policies, running)
        bound = {source.model.metadata.name: bound_elsewhere(source, running) for source in everything}
        self.policies = [source for source in everything if not bound[source.model.metadata.name]]
        self.notes = [
            f"{name}: {where}; not measured on this model" for name, where in bound.items() if where
        ]

    def run(
        self,
        data: DataFolder,
        rows: int,
        texts: int,
        *,
        watcher: Watcher | None = None,
        progress: Progress | None = None,
    ) -> PolicyEvaluation:
        """Everything. `watcher` is shown the texts of every policy while they are in memory."""
        told = self.reader.tell = progress or _silent
        told("reading benign texts")
        requests = {
            name: [self._met(text, Kind.REQUEST) for text in own]
            for name, own in data.requests(4 * (rows or ROWS)).items()
        }
        benign = [text for own in requests.values() for text in own]
        read = self.reader.read(benign)
        results: list[RuleOnSource] = []
        notes = [*data.notes, *idle_sources(data, self.policies)]
        for source in self.policies if rows else ():
            told(f"measuring {source.model.metadata.name}")
            results += self._on_sources(source, data, rows, (benign, read), notes, watcher)
        told("counting false positives")
        groups = _by_source(requests, read) | self._corpora(data, texts, notes)
        found = self.cards()
        return dataclasses.replace(
            found,
            sources=tuple(results),
            rates=tuple(self._rates(groups)),
            notes=(*found.notes, *dict.fromkeys(notes)),
        )

    def cards(self) -> PolicyEvaluation:
        """What the locks say, without measuring anything."""
        pair = self.reader.pair
        digests = {
            "model": pair.loaded.digest,
            "dictionary": pair.dictionary.digest,
            "policies": self.set.digest,
        }
        return PolicyEvaluation(
            str(self.folder),
            digests,
            tuple(s.lock for s in self.policies if s.lock is not None),
            notes=(*self.notes, *(note for source in self.policies for note in notes_on(source, self.set))),
            pair=pair.name,
        )

    def locked(self) -> list[Source]:
        """Policies that were fitted to examples."""
        return [s for s in self.policies if s.lock is not None and s.model.concept is not None]

    def trials(self, source: Source) -> list[RuleScorer]:
        """The rules of a policy, ready to score, in the order of the file."""
        return tried(source, self.set)

    def _corpora(self, data: DataFolder, most: int, notes: list[str]) -> dict[str, tuple[str, TextReadings]]:
        """By corpus, what kind of text it is, and its excerpts read."""
        found = {}
        for corpus in data.corpora:
            unseen = itertools.islice(documents([corpus.path], "heldout", data.halved), most)
            texts = [self._met(text) for text in (excerpt(one, *SPREAD) for one in unseen) if text.strip()]
            if texts:
                kind = UNLIKE if corpus.unlike else CORPUS
                found[corpus.name] = kind, self.reader.read(texts)
            else:
                notes.append(
                    f"{corpus.name}: not measured, as no document is on the side of the split that fits leave out"
                )
        if found and not data.split_asked:
            notes.append(
                f"{', '.join(found)}: read is the half of the documents that `policy fit --benign` leaves out"
            )
        return found

    def _source_texts(
        self, source: Source, data: DataFolder, rows: int, notes: list[str]
    ) -> list[SourceTexts]:
        """Unseen rows of the labelled sources that speak of a policy."""
        meta = source.model.metadata
        found = []
        for file in data.about(meta.name, meta.category):
            kept = data.held_out(file, rows)
            if len(kept) < FEWEST_ROWS or not any(row.label for row in kept):
                positive = sum(bool(row.label) for row in kept)
                notes.append(
                    f"{file.name}: not measured, as only {len(kept)} rows, {positive} of them positive, are on the "
                    f"side of the split that fits leave out; at least {FEWEST_ROWS} and one positive are needed"
                )
                continue
            texts = [self._met(row.text, kind_called(row.kind)) for row in kept]
            labels = np.asarray([bool(row.label) for row in kept], np.intp)
            groups = [row.group for row in kept]
            found.append(SourceTexts(file.name, texts, self.reader.read(texts), labels, groups))
        return found

    def _on_sources(
        self,
        source: Source,
        data: DataFolder,
        rows: int,
        requests: tuple[Sequence[Document], TextReadings],
        notes: list[str],
        watcher: Watcher | None,
    ) -> list[RuleOnSource]:
        sources, ready = self._source_texts(source, data, rows, notes), self.trials(source)
        told, read = requests
        if ready and watcher is not None:
            watcher(PolicyTexts(source, ready[0], sources, told, read))
        if not sources or not ready:
            return []
        if source.model.concept is None:
            return [r for one in ready for r in on_sources(one, None, sources, read, told, seed=0)]
        meta = source.model.metadata
        path = self.folder / BENIGN_FILE
        kinds = read_benign_kinds(path) if path.exists() else {}
        benign = [self._met(text, kind) for text, kind in kinds.items()]
        extra = data.extra_rows(meta.name, meta.category)
        learnt = read_rows(self.reader, source.examples, ReadTexts(benign, self.reader.read(benign)), extra)
        return on_sources(ready[0], learnt, sources, read, told, seed=0)

    def _met(self, text: str, kind: Kind = Kind.STATEMENT) -> Document:
        """A text where it may occur; one that may be asked and said, as one of the two."""
        return one_occurrence(text, kind, turns=self.reader.takes_turns)

    def _rates(self, benign: Mapping[str, tuple[str, TextReadings]]) -> list[BenignRate]:
        found: list[BenignRate] = []
        anything = {name: np.zeros(len(read), np.intp) for name, (_, read) in benign.items()}
        for source in self.policies:
            for trial in self.trials(source):
                for name, (kind, read) in benign.items():
                    found += rates(trial, name, read, EDGES, kind)
                    anything[name] |= trial.fired(read)
        for name, (kind, read) in benign.items():
            found += rates_of(ANY, "", None, name, anything[name], read.lengths, EDGES, kind)
        return found


def idle_sources(data: DataFolder, policies: Sequence[Source]) -> Iterator[str]:
    """A note on the labelled sources that are about none of the policies; InputError where no source is about any."""
    named = [source.model.metadata for source in policies]
    used = {s.name for meta in named for s in data.about(meta.name, meta.category)}
    idle = [source for source in data.sources if source.name not in used]
    subjects = ", ".join(sorted({name for source in idle for name in source.about}))
    if idle and not used:
        known = ", ".join(sorted({name for meta in named for name in (meta.name, meta.category)}))
        raise InputError(
            f"the labelled files of {data.folder} are about {subjects}, and no policy here is: say what they are "
            f"about with --about 'PATTERN=NAME', NAME being one of {known}"
        )
    if idle:
        yield f"{', '.join(s.name for s in idle)}: not used, as no policy here is about {subjects}"


def signals_of(sources: Sequence[Source]) -> set[Signal]:
    """The anomaly signals that policies read."""
    leaves = [leaf for source in sources for leaf in source.model.leaves().values()]
    return {leaf.signal for leaf in leaves if leaf.signal is not None}


def tried(source: Source, policies: PolicySet) -> list[RuleScorer]:
    """Every rule, in the order of the file: by its lock where that has its threshold, otherwise as it runs."""
    owner = _owner(source, policies)
    locked: dict[str, RuleScorer] = {}
    if source.lock is not None:
        locked = {one.rule: one for one in locked_scorers(source.model, source.lock, source.probe_folder)}
    how = poolings(source.model)[0]
    return [locked.get(rule.name) or RunningRuleScorer(owner, rule, how) for rule in owner.rules]


def notes_on(source: Source, policies: PolicySet) -> list[str]:
    """What somebody who reads the tables must know of a policy's rows."""
    owner, model = _owner(source, policies), source.model
    name = model.metadata.name
    notes = [f"{name}/{rule.name}: {_combined(owner, rule)}" for rule in owner.rules if rule.when is not None]
    if model.concept is None and owner.rules:
        notes.append(f"{name}: learnt from no examples, so it has no card, and no baselines stand beside it")
    if not owner.rules:
        notes.append(f"{name}: has no rules, it only clamps; `policy cost` measures that")
    elif model.concept is not None and len(owner.rules) > 1:
        notes.append(f"{name}: sources and texts are shown for its first rule, `{owner.rules[0].name}`")
    alone = [rule.name for rule in owner.rules if rule.session]
    alone += [part.name for part in owner.conditions if part.session]
    if alone:
        names = ", ".join(alone)
        notes.append(
            f"{name}: {names} add up over a conversation; here each text is a conversation of its own"
        )
    return notes


def _combined(owner: Policy, rule: Rule) -> str:
    program, phase = compile_program((owner,)), phase_of(rule)
    combined = [one.name for one in owner.rules if one.when is not None]
    leaves = [program.checks[int(program.leaves[i])] for i in program.parts[combined.index(rule.name)]]
    deaf = [leaf.name for leaf in leaves if phase not in leaf.phases]
    text = (
        "combines conditions; its AUROC and recall rank texts by the margin of the combination, each condition where "
        "it comes nearest, so `for` and `lasts` count only in what is caught and what fires"
    )
    if deaf:
        text += f", and a text is all {phase} here, so `{'`, `'.join(deaf)}` cannot be reached"
    return text


def _owner(source: Source, policies: PolicySet) -> Policy:
    return next(policy for policy in policies.policies if policy.name == source.model.metadata.name)


def _by_source(
    requests: Mapping[str, Sequence[Document]], read: TextReadings
) -> dict[str, tuple[str, TextReadings]]:
    """What was read of each source of requests."""
    ends = np.cumsum([0, *(len(texts) for texts in requests.values())])
    return {
        name: (REQUESTS, read.take(np.arange(start, end)))
        for name, start, end in zip(requests, ends, ends[1:], strict=False)
    }


def _silent(_: str) -> None:
    """Tell nobody."""
