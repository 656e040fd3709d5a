"""Checks a folder of policies without a model: every policy, examples file, lock and test, and the benign texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monitor.policy.files.benign import folder_benign_texts
from monitor.policy.files.cases import TestModel, read_tests, test_path
from monitor.policy.files.diagnostics import validate
from monitor.policy.files.examples import examples_digest
from monitor.policy.files.lock_checks import stale_checks
from monitor.policy.files.resolve import measured_mode
from monitor.policy.files.set_budget import SetBudget, budget_notes, budgeted_sources, read_budget
from monitor.policy.files.source import Source, orphans, policy_paths, read_source, unused
from monitor.policy.files.yaml_document import PolicyProblems, Problem, read_document
from monitor.records import Mode


@dataclass(frozen=True)
class Checked:
    """The numbers of policies, rules and examples that were read, and notes."""

    policies: int
    rules: int
    examples: int
    budget: SetBudget | None
    """What the set costs on benign texts; None where nobody has shared a budget."""
    notes: tuple[str, ...]
    """One line for each thing that is worth knowing and no error, such as a missing test file or a stale lock."""


def check_folder(folder: Path) -> Checked:
    """Read every policy, examples file, lock, test and benign text; PolicyProblems with all problems of all files."""
    problems: list[Problem] = orphans(folder)
    sources: list[Source] = []
    paths = policy_paths(folder)
    for path in paths:
        try:
            source = read_source(path)
            sources.append(source)
            if test_path(path).exists():
                read_tests(source)
        except PolicyProblems as error:
            problems.extend(error.problems)
            problems.extend(_test_alone(path, error))
    try:
        folder_benign_texts(folder)
    except PolicyProblems as error:
        problems.extend(error.problems)
    budget: SetBudget | None = None
    try:
        budget = read_budget(folder)
    except PolicyProblems as error:
        problems.extend(error.problems)
    if len(sources) == len(paths):  # Where one cannot be read, nobody knows which files it names.
        problems.extend(unused(folder, sources))
    if problems:
        raise PolicyProblems(problems)
    return Checked(
        policies=len(sources),
        rules=sum(len(source.model.rules) for source in sources),
        examples=sum(len(source.examples) for source in sources),
        budget=budget,
        notes=(
            *(note for source in sources for note in _notes(source)),
            *(f"budget: {note}" for note in budget_notes(budget, budgeted_sources(budget, sources))),
        ),
    )


def _test_alone(path: Path, error: PolicyProblems) -> list[Problem]:
    """The problems of a policy's test file, where the policy itself has problems too."""
    test = test_path(path)
    if not test.exists() or any(problem.file == str(test) for problem in error.problems):
        return []
    try:
        validate(read_document(test), TestModel)
    except PolicyProblems as found:
        return list(found.problems)
    return []


def _notes(source: Source) -> list[str]:
    name = source.model.metadata.name
    notes = [] if test_path(source.path).exists() else [f"{name}: has no test file"]
    if _clamps_nothing(source):
        notes.append(
            f"{name}: `suppress` clamps nothing, although always, because every rule is in shadow mode"
        )
    if not source.model.needs_lock:
        return notes
    if source.lock is None:
        return [*notes, f"{name}: was never fitted"]
    if source.model.concept is not None and source.lock.examples != examples_digest(source.examples):
        notes.append(f"{name}: the examples changed since it was fitted")
    notes += [f"{name}: the lock holds a threshold for `{gone}`, which is gone" for gone in _gone(source)]
    return notes + [f"{name}: {problem.message}" for problem in stale_checks(source, source.lock)]


def _gone(source: Source) -> list[str]:
    """Rules and conditions that the lock has a threshold for and the policy has not."""
    leaves, lock = source.model.leaves(), source.lock
    if lock is None:
        return []
    written = [*(("rules", name) for name in lock.rules), *(("conditions", name) for name in lock.conditions)]
    return [name for section, name in written if (section, name) not in leaves]


def _clamps_nothing(source: Source) -> bool:
    """True where clamps of `when: always` have no effect: a policy whose rules only watch does not act either."""
    rules, suppress = source.model.rules, source.model.suppress
    modes = {rule.mode or measured_mode(source) for rule in rules}
    return suppress is not None and suppress.when == "always" and modes == {Mode.SHADOW}
