"""Locks and the pair that they are bound to: which digests differ, and whether a lock holds for this pair all the same.

A digest changes with every file that decides what a model computes, also where the numbers of a policy stay what they
were, as with a new chat template for rules on plain texts. `bind` measures whether they do before it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from monitor.lab.policies import bound_elsewhere, lock_folder, running_of
from monitor.lab.policy_evaluation import signals_of
from monitor.lab.policy_tests import results_of
from monitor.lab.recheck.equivalence import Sameness, SamenessTest
from monitor.lab.recheck.policies import PolicyRecheck, Rechecker
from monitor.lab.recheck.rules import RecheckVerdict
from monitor.policy.files.loader import read_folder
from monitor.policy.files.lock import LockModel, put
from monitor.policy.files.lock_folders import lock_path
from monitor.policy.files.resolve import resolve
from monitor.policy.files.source import Running, Source, with_lock
from monitor.policy.files.yaml_document import Problem

if TYPE_CHECKING:
    from monitor.lab.pair import Pair
    from monitor.lab.readings import PairReader


@dataclass(frozen=True)
class Binding:
    """A policy's lock beside a pair."""

    policy: str
    folder: str
    """The folder below `locks/` that the lock lies in, or would lie in."""
    differs: tuple[str, ...] = ()
    """What the lock is bound to another of: `model`, `dictionary`, or both; empty where it is bound to the pair."""
    why_not: tuple[str, ...] = ()
    """Why it does not hold for the pair; empty where it does, or where nobody has measured."""
    written: bool = False
    """Whether it was bound to the pair now."""
    missing: bool = False
    """Whether there is none."""


def bindings(pair: Pair, folder: Path, locks: str | None = None, taken: str | None = None) -> list[Binding]:
    """Every policy of a folder that needs a lock for this model, with the lock there is. Measures nothing.

    Args:
        pair: The model and its dictionary.
        folder: The policies.
        locks: The folder below `locks/` of this pair; without it see `lock_folder`.
        taken: The folder that locks are taken from where the pair has none; the pair's own by default.
    """
    running, place = running_of(pair), lock_folder(folder, running_of(pair), locks)
    return [
        Binding(source.model.metadata.name, _folder_of(source, place), _differs(source.lock, running))
        if source.lock is not None
        else Binding(source.model.metadata.name, place, missing=True)
        for source in _needing(running, folder, taken or place)
    ]


def bind(
    pair: Pair,
    folder: Path,
    progress: Callable[[str], None],
    locks: str | None = None,
    taken: str | None = None,
) -> list[Binding]:
    """Bind the locks of a folder to a pair, each where its numbers still hold; write those that do.

    Nothing but the digests of model and dictionary changes in a lock. It holds where policy, examples and recorded
    maxima are those that it was fitted with, a recheck finds that it does, and the policy's own tests pass. Locks that
    are taken from the folder of another pair stay there as they are. The arguments are those of `bindings`. PolicyError
    where the folder cannot be read.
    """
    from monitor.lab.readings import PairReader

    running, place = running_of(pair), lock_folder(folder, running_of(pair), locks)
    sources = _needing(running, folder, taken or place)
    rechecked = _rechecked(pair, folder, sources, taken or place, progress)
    reader = PairReader(pair, signals_of(sources))
    found = []
    for source in sources:
        name, lock = source.model.metadata.name, source.lock
        if lock is None or not (differs := _differs(lock, running)):
            found.append(Binding(name, _folder_of(source, place), missing=lock is None))
            continue
        progress(f"testing {name}")
        bound = _bound(lock, running)
        why = tuple(_objections(replace(source, lock=bound), reader, rechecked[lock.policy]))
        if not why:
            _write(source, lock_path(source.path, place), bound)
        found.append(Binding(name, place, differs, why, written=not why))
    return found


def _rechecked(
    pair: Pair, folder: Path, sources: list[Source], taken: str, progress: Callable[[str], None]
) -> dict[str, PolicyRecheck]:
    """What a recheck finds of those locks that are of another pair, by policy; they lie in the folder `taken`."""
    running = running_of(pair)
    stale = [
        source.model.metadata.name
        for source in sources
        if source.lock is not None and _differs(source.lock, running)
    ]
    if not stale:
        return {}
    rechecker = Rechecker(folder, only=stale, locks=taken)
    return {one.policy: one for one in rechecker.compare(pair, rechecker.scores(pair, progress)).policies}


def _needing(running: Running, folder: Path, taken: str) -> list[Source]:
    """The policies of a folder that need a lock for what runs, with theirs; else with that of the folder `taken`."""
    sources = (
        source
        for source in read_folder(folder, running)
        if source.model.needs_lock and not bound_elsewhere(source, running)
    )
    return [source if source.lock is not None else with_lock(source, taken) for source in sources]


def _folder_of(source: Source, place: str) -> str:
    return place if source.lock_file is None else source.lock_file.parent.name


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


def _write(source: Source, path: Path, now: LockModel) -> None:
    """Write a policy's lock to `path` with other digests and every other character as it is; its probe's file too."""
    then, file = source.lock, source.lock_file
    assert then is not None
    assert file is not None
    text = file.read_text(encoding="utf-8")
    text = text.replace(then.model.digest, now.model.digest)
    text = text.replace(then.dictionary.digest, now.dictionary.digest)
    if path != file and now.probe is not None and now.probe.weights_file is not None:
        put(path.with_name(now.probe.weights_file), (file.parent / now.probe.weights_file).read_bytes())
    put(path, text.encode())


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
