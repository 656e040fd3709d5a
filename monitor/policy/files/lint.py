"""Checks a folder of policies without a model: every policy, examples file, lock and test, and the benign texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from monitor.policy.files.benign import folder_benign_texts
from monitor.policy.files.cases import TestModel, read_tests, test_path
from monitor.policy.files.diagnostics import validate
from monitor.policy.files.examples import examples_digest
from monitor.policy.files.lock import LockModel
from monitor.policy.files.lock_checks import stale_checks
from monitor.policy.files.lock_folders import locks_of, pair_folders
from monitor.policy.files.resolve import measured_mode
from monitor.policy.files.set_budget import SetBudget, budget_notes, budgeted_sources, read_budget
from monitor.policy.files.source import (
    Source,
    orphans,
    policy_paths,
    read_lock,
    read_source,
    unused,
    with_lock,
)
from monitor.policy.files.yaml_document import PolicyProblems, Problem, read_document
from monitor.policy.schema.policy import fits
from monitor.records import Mode


@dataclass(frozen=True)
class PairLocks:
    """The locks in the folder of one pair."""

    pair: str
    """Name of the folder."""
    there: tuple[str, ...]
    """Names of the policies that have one."""
    missing: tuple[str, ...]
    """Names of the policies that need one here and have none."""


@dataclass(frozen=True)
class Checked:
    """The numbers of policies, rules and examples that were read, the locks, and notes."""

    policies: int
    rules: int
    examples: int
    locks: tuple[PairLocks, ...]
    """One for each folder of locks."""
    budgets: tuple[tuple[str, SetBudget], ...]
    """For each folder of locks in which a budget was shared, its name and what the set costs on benign texts."""
    notes: tuple[str, ...]
    """One line for each thing that is worth knowing and no error, such as a missing test file or a stale lock."""


def check_folder(folder: Path) -> Checked:
    """Read every policy, examples file, lock, test and benign text; PolicyProblems with all problems of all files."""
    problems: list[Problem] = orphans(folder)
    sources: list[Source] = []
    locked: list[Source] = []
    paths = policy_paths(folder)
    for path in paths:
        try:
            source = read_source(path, None)
        except PolicyProblems as error:
            problems.extend(error.problems)
            problems.extend(_alone(path, error))
            continue
        sources.append(source)
        for part in _beside(source):
            if isinstance(part, Source):
                locked.append(part)
            else:
                problems.extend(part)
    try:
        folder_benign_texts(folder)
    except PolicyProblems as error:
        problems.extend(error.problems)
    budgets: list[tuple[str, SetBudget]] = []
    for place in pair_folders(folder):
        try:
            budget = read_budget(place)
        except PolicyProblems as error:
            problems.extend(error.problems)
            continue
        budgets += [] if budget is None else [(place.name, budget)]
    problems.extend(_twice(locked))
    # Where one cannot be read, nobody knows which files it names.
    if len(sources) == len(paths) and len(locked) == sum(len(locks_of(path)) for path in paths):
        problems.extend(unused(folder, [file for source in (*sources, *locked) for file in source.files]))
    if problems:
        raise PolicyProblems(problems)
    return Checked(
        policies=len(sources),
        rules=sum(len(source.model.rules) for source in sources),
        examples=sum(len(source.examples) for source in sources),
        locks=tuple(_of_pairs(folder, sources, locked)),
        budgets=tuple(budgets),
        notes=(
            *(note for source in sources for note in _notes(source, _mine(source, locked))),
            *(note for pair, budget in budgets for note in _budget_notes(pair, budget, sources, locked)),
        ),
    )


def _beside(source: Source) -> Iterator[Source | Sequence[Problem]]:
    """The policy with each of its locks, or the problems of that lock; and the problems of its tests."""
    for pair in locks_of(source.path):
        try:
            yield with_lock(source, pair)
        except PolicyProblems as error:
            yield error.problems
    try:
        if test_path(source.path).exists():
            read_tests(source)
    except PolicyProblems as error:
        yield error.problems


def _budget_notes(
    pair: str, budget: SetBudget, sources: Sequence[Source], locked: Sequence[Source]
) -> Iterator[str]:
    """What is to be said of the budget in a folder of locks."""
    own = {one.path: one for one in locked if _pair(one) == pair}
    whole = [own.get(source.path, source) for source in sources]
    for note in budget_notes(budget, budgeted_sources(budget, whole)):
        yield f"locks/{pair}: budget: {note}"


def _alone(path: Path, error: PolicyProblems) -> Iterator[Problem]:
    """The problems of a policy's locks and tests, where the policy itself has problems too."""
    for lock in locks_of(path).values():
        try:
            read_lock(lock)
        except PolicyProblems as found:
            yield from found.problems
    test = test_path(path)
    if not test.exists() or any(problem.file == str(test) for problem in error.problems):
        return
    try:
        validate(read_document(test), TestModel)
    except PolicyProblems as found:
        yield from found.problems


def _mine(source: Source, locked: Sequence[Source]) -> list[Source]:
    """A policy with each of its locks."""
    return [one for one in locked if one.path == source.path]


def _pair(locked: Source) -> str:
    """The name of the folder that a lock lies in."""
    assert locked.lock_file is not None
    return locked.lock_file.parent.name


def _lock(locked: Source) -> LockModel:
    assert locked.lock is not None
    return locked.lock


def _of_pairs(folder: Path, sources: Sequence[Source], locked: Sequence[Source]) -> Iterator[PairLocks]:
    for pair in pair_folders(folder):
        mine = [one for one in locked if _pair(one) == pair.name]
        there = {one.model.metadata.name for one in mine}
        models = {_lock(one).model.name for one in mine}
        needed = [source.model.metadata.name for source in sources if _needs_lock(source, models)]
        yield PairLocks(pair.name, tuple(sorted(there)), tuple(name for name in needed if name not in there))


def _needs_lock(source: Source, models: set[str]) -> bool:
    """Whether a policy needs a lock for a pair whose model is called so; no name says nothing."""
    match = source.model.match
    patterns = match.models if match is not None else None
    return source.model.needs_lock and (not models or any(fits(patterns, name) for name in models))


def _twice(locked: Sequence[Source]) -> Iterator[Problem]:
    """A problem for every lock of a policy for a pair for which there is another."""
    seen: dict[tuple[Path, str, str], Source] = {}
    for one in locked:
        key = (one.path, _lock(one).model.digest, _lock(one).dictionary.digest)
        first = seen.setdefault(key, one)
        if first is not one:
            message = f"is of the same pair as {first.lock_file}"
            yield Problem(
                str(one.lock_file), 1, 1, message, "remove all but one; the folder's name does not matter"
            )


def _notes(source: Source, locked: Sequence[Source]) -> list[str]:
    name = source.model.metadata.name
    notes = [] if test_path(source.path).exists() else [f"{name}: has no test file"]
    if not source.model.needs_lock:
        return notes + _clamps_nothing(source)
    if not locked:
        return [*notes, *_clamps_nothing(source), f"{name}: was never fitted"]
    return notes + [note for one in locked for note in _lock_notes(one)]


def _lock_notes(locked: Source) -> list[str]:
    """What is worth knowing of a policy with one of its locks."""
    name, lock, pair = locked.model.metadata.name, _lock(locked), _pair(locked)
    notes = _clamps_nothing(locked, f" with the lock for {pair}")
    if locked.model.concept is not None and lock.examples != examples_digest(locked.examples):
        notes.append(f"{name}: the examples changed since it was fitted to {pair}")
    gone = (
        f"{name}: the lock for {pair} holds a threshold for `{gone}`, which is gone" for gone in _gone(locked)
    )
    return [
        *notes,
        *gone,
        *(f"{name}: {problem.message} (locks/{pair})" for problem in stale_checks(locked, lock)),
    ]


def _gone(locked: Source) -> list[str]:
    """Rules and conditions that the lock has a threshold for and the policy has not."""
    leaves, lock = locked.model.leaves(), _lock(locked)
    written = [*(("rules", name) for name in lock.rules), *(("conditions", name) for name in lock.conditions)]
    return [name for section, name in written if (section, name) not in leaves]


def _clamps_nothing(source: Source, where: str = "") -> list[str]:
    """A note where clamps of `when: always` have no effect: a policy whose rules only watch does not act either."""
    rules, suppress = source.model.rules, source.model.suppress
    modes = {rule.mode or measured_mode(source) for rule in rules}
    if suppress is None or suppress.when != "always" or modes != {Mode.SHADOW}:
        return []
    return [
        f"{source.model.metadata.name}: `suppress` clamps nothing{where}, although always, because every rule is in "
        "shadow mode"
    ]
