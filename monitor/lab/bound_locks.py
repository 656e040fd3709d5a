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
from monitor.lab.policy_tests import results_of
from monitor.lab.recheck.equivalence import Sameness, SamenessTest
from monitor.lab.recheck.policies import PolicyRecheck, Rechecker
from monitor.lab.recheck.rules import RecheckVerdict
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel, lock_path
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, Source
from monitor.policy.files.yaml_document import Problem

if TYPE_CHECKING:
    from monitor.lab.pair import Pair
    from monitor.lab.readings import PairReader


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
    maxima are those that it was fitted with, a recheck finds that it does, and the policy's own tests pass. PolicyError
    where the folder cannot be read.
    """
    from monitor.lab.readings import PairReader

    running, found = running_of(pair), []
    sources = list(_locked(pair, folder))
    rechecked = _rechecked(pair, folder, [lock for _, lock in sources], progress)
    reader = PairReader(pair)
    for source, lock in sources:
        progress(f"testing {lock.policy}")
        if not (differs := _differs(lock, running)):
            found.append(Binding(lock.policy, ()))
            continue
        bound = _bound(lock, running)
        why = tuple(_objections(replace(source, lock=bound), reader, rechecked[lock.policy]))
        if not why:
            _write(lock_path(source.path), lock, bound)
        found.append(Binding(lock.policy, differs, why, written=not why))
    return found


def _rechecked(
    pair: Pair, folder: Path, locks: list[LockModel], progress: Callable[[str], None]
) -> dict[str, PolicyRecheck]:
    """What a recheck finds of those locks that are of another pair, by policy."""
    running = running_of(pair)
    stale = [lock.policy for lock in locks if _differs(lock, running)]
    if not stale:
        return {}
    rechecker = Rechecker(folder, only=stale)
    return {one.policy: one for one in rechecker.compare(pair, rechecker.scores(pair, progress)).policies}


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


def _objections(source: Source, reader: PairReader, rechecked: PolicyRecheck) -> Iterator[str]:
    """What speaks against a lock that claims to be of the reader's pair, each as a phrase."""
    running = running_of(reader.pair)
    problems: list[Problem] = []
    if source.lock is None or resolve(source, running, problems) is None:
        yield from (problem.message for problem in problems)
        return
    for rule in rechecked.rules:
        for check in rule.checks if rule.verdict is not RecheckVerdict.HOLDS else ():
            if check.found is not Sameness.SAME:
                yield f"`{rule.name}` {_phrase(check)}"
    for result in results_of(source, reader, running):
        if not (result.passed or result.skipped):
            yield f"its test `{result.case}` fails: {result.detail}"


def _phrase(check: SamenessTest) -> str:
    """What a test found that does not show sameness, after the name of its rule."""
    now, then = (0.0 if check.now is None else check.now.value), check.then or 0.0
    said = {
        "false_positives": f"fires on {now:.1%} of the benign texts and its lock says {then:.1%}",
        "caught": f"catches {now:.0%} of the examples and its lock says {then:.0%}",
        "held_out_auroc": f"would separate unseen texts with an AUROC of {now:.2f} and its lock says {then:.2f}",
        "auroc": f"separates with an AUROC of {now:.2f} and its lock says {then:.2f}",
        "recall": f"has a recall of {now:.0%} at 1% false positives and its lock says {then:.0%}",
    }.get(check.name, "scores otherwise near its threshold")
    if check.found is Sameness.MOVED:
        return said
    more = "many more" if check.more is None else f"{check.more:,} more"
    texts = "benign texts" if check.kind == "benign" else "positive examples"
    return f"{said}; {check.texts:,} {texts} are too few to tell, {more} would do"
