"""Reads a folder of policy files into a PolicySet, or into one error that lists every problem of every file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from monitor.policy.files.resolve import applies, resolve
from monitor.policy.files.set_budget import set_notes
from monitor.policy.files.source import LockOf, Running, Source, policy_paths, read_source
from monitor.policy.files.yaml_document import PolicyProblems, Problem
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.sessions import SessionStore


def load_policies(
    folder: Path,
    *,
    dictionary_digest: str,
    model_digest: str,
    features: int,
    maxima: Sequence[float] | None = None,
    width: int | None = None,
    names: Sequence[str] = (),
    pair: str = "",
    sessions: SessionStore | None = None,
) -> PolicySet:
    """Read, check and resolve all policies of a folder for the running model and dictionary.

    `features` is the number of features in the dictionary. `maxima` `[features]` are the recorded maxima that readings
    are divided by; with them, locks that were fitted with other maxima and features that were never active are
    refused. `width` is the width of the residual stream, which a probe must have. Policies whose `match.models` match
    none of the model's `names` are left out. `pair` is the name of the pair, where it has one. `sessions` is the store
    of the set that this one replaces. Raises PolicyProblems, a PolicyError, with every problem of every file.
    """
    running = Running(model_digest, dictionary_digest, features, maxima, width, tuple(names), pair)
    everything = read_folder(folder, running)
    sources = [source for source in everything if applies(source, running)]
    problems: list[Problem] = []
    if not sources:
        message = (
            f"no policy applies to the model {' or '.join(names)}: all are bound to others by `match.models`"
        )
        problems.append(Problem(str(folder), 1, 1, message, "add the model's name, or leave `models` out"))
    policies = [resolve(source, running, problems) for source in sources]
    if problems:
        raise PolicyProblems(problems)
    resolved = tuple(policy for policy in policies if policy is not None)
    return PolicySet(resolved, set_digest(sources), sessions=sessions, notes=set_notes(sources))


def read_folder(folder: Path, lock: LockOf) -> tuple[Source, ...]:
    """Every policy of a folder, in order of file names, each checked on its own; PolicyProblems with every problem.

    `lock` says which of a policy's locks is read.
    """
    paths = policy_paths(folder)
    sources: list[Source] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            sources.append(read_source(path, lock))
        except PolicyProblems as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyProblems(problems)
    return tuple(sources)


def set_digest(sources: Sequence[Source]) -> str:
    """`sha256:` over names and contents of every file that the policies were read from.

    The names are without folders: what the folder of a pair's locks is called means nothing.
    """
    total = hashlib.sha256()
    files = (path for source in sources for path in source.files)
    for name, content in sorted((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files):
        total.update(f"{name}\0{content}\n".encode())
    return "sha256:" + total.hexdigest()
