"""Locks and the pair that they are bound to: which digests differ, and whether a lock holds for this pair all the same.

A digest changes with every file that decides what a model computes, also where the numbers of a policy stay what they
were, as with a new chat template for rules on plain texts. `bind` measures whether they do before it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.lab.policies import bound_elsewhere, running_of
from monitor.lab.policy_evaluation import signals_of
from monitor.lab.policy_tests import results_of
from monitor.policy.files.benign import read_benign_kinds
from monitor.policy.files.examples import BENIGN_FILE
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel, lock_path
from monitor.policy.files.occurrences import one_occurrence
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, Source
from monitor.policy.files.yaml_document import Problem
from monitor.policy.fit.rule_scorers import locked_scorers

if TYPE_CHECKING:
    from monitor.lab.pair import Pair
    from monitor.lab.readings import PairReader
    from monitor.policy.fit.readings import TextReadings

SLACK = 0.02
"""A rule may catch so much less of the positives, or fire on so much more of the benign texts, than its lock says: what
a lock says of both was measured on held-out texts, and here a rule meets those that it learnt from as well."""


@dataclass(frozen=True)
class Binding:
    """A lock beside a pair."""

    policy: str
    differs: tuple[str, ...]
    """What the lock is bound to another of: `model`, `dictionary`, or both; empty where it is bound to the pair."""
    why_not: tuple[str, ...] = ()
    """Why it does not hold for the pair; empty where it does, or where nobody has measured."""
    written: bool = False
    """Whether it was bound to the pair now."""


def bindings(pair: Pair, folder: Path) -> list[Binding]:
    """Every lock of a folder that is about this model, with what it is bound to another of. Measures nothing."""
    return [Binding(lock.policy, _differs(lock, running_of(pair))) for _, lock in _locked(pair, folder)]


def bind(pair: Pair, folder: Path, progress: Callable[[str], None]) -> list[Binding]:
    """Bind the locks of a folder to a pair, each where its numbers still hold; write those that do.

    Nothing but the digests of model and dictionary changes in a lock. It holds where policy, examples and recorded
    maxima are those that it was fitted with; every rule catches as many of the examples and fires on as few benign
    texts as the lock says; and the policy's own tests pass. PolicyError where the folder cannot be read.
    """
    from monitor.lab.readings import PairReader

    running, found = running_of(pair), []
    sources = list(_locked(pair, folder))
    reader = PairReader(pair, signals_of([source for source, _ in sources]))
    benign: TextReadings | None = None
    for source, lock in sources:
        progress(f"measuring {lock.policy}")
        if not (differs := _differs(lock, running)):
            found.append(Binding(lock.policy, ()))
            continue
        if benign is None and (folder / BENIGN_FILE).exists():
            kinds = read_benign_kinds(folder / BENIGN_FILE)
            turns = reader.takes_turns
            benign = reader.read([one_occurrence(text, kind, turns=turns) for text, kind in kinds.items()])
        bound = _bound(lock, running)
        why = tuple(_objections(replace(source, lock=bound), reader, benign))
        if not why:
            _write(lock_path(source.path), lock, bound)
        found.append(Binding(lock.policy, differs, why, written=not why))
    return found


def _locked(pair: Pair, folder: Path) -> Iterator[tuple[Source, LockModel]]:
    """The policies of a folder that apply to the pair's model and have a lock, with it."""
    running = running_of(pair)
    for source in read_folder(folder):
        if source.lock is not None and source.model.needs_lock and not bound_elsewhere(source, running):
            yield source, source.lock


def _differs(lock: LockModel, running: Running) -> tuple[str, ...]:
    pairs = (
        ("model", lock.model.digest, running.model),
        ("dictionary", lock.dictionary.digest, running.dictionary),
    )
    return tuple(name for name, then, now in pairs if then != now)


def _bound(lock: LockModel, running: Running) -> LockModel:
    """The lock with the digests of what runs."""
    return lock.model_copy(
        update={
            "model": lock.model.model_copy(update={"digest": running.model}),
            "dictionary": lock.dictionary.model_copy(update={"digest": running.dictionary}),
        }
    )


def _write(path: Path, then: LockModel, now: LockModel) -> None:
    """Put other digests into a lock file, and leave every other character as it is. A reader never sees half of it."""
    text = path.read_text(encoding="utf-8")
    text = text.replace(then.model.digest, now.model.digest)
    text = text.replace(then.dictionary.digest, now.dictionary.digest)
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _objections(source: Source, reader: PairReader, benign: TextReadings | None) -> Iterator[str]:
    """What speaks against a lock that claims to be of the reader's pair, each as a phrase."""
    running = running_of(reader.pair)
    problems: list[Problem] = []
    if source.lock is None or resolve(source, running, problems) is None:
        yield from (problem.message for problem in problems)
        return
    positive = [example for example in source.examples if example.label == "positive"]
    met = [one for example in positive for one in example.occurrences(turns=reader.takes_turns)]
    read = reader.read(met) if met else None
    for scorer in locked_scorers(source.model, source.lock, source.path.parent):
        caught, said = scorer.locked.caught, scorer.locked.benign_rate
        if read is not None and caught is not None and (now := _rate(scorer.fired(read))) < caught - SLACK:
            yield f"`{scorer.rule}` catches {now:.0%} of the examples and its lock says {caught:.0%}"
        if benign is not None and (now := _rate(scorer.fired(benign))) > said + SLACK:
            yield f"`{scorer.rule}` fires on {now:.1%} of the benign texts and its lock says {said:.1%}"
    for result in results_of(source, reader, running):
        if not (result.passed or result.skipped):
            yield f"its test `{result.case}` fails: {result.detail}"


def _rate(fired: object) -> float:
    import numpy as np

    return float(np.mean(np.asarray(fired)))
