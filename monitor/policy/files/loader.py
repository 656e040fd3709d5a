"""A folder of policy files becomes a PolicySet, or one error that lists every problem of every file.

Knows which files belong together (NAME.yaml, NAME.lock.yaml, examples) and what must agree between them and
with what runs. Does not know how a lock is fitted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from monitor.policy.files.resolve import applies, resolve
from monitor.policy.files.source import Running, Source, read_source
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
    sessions: SessionStore | None = None,
) -> PolicySet:
    """Read, check and resolve all policies of a folder for the model and dictionary that run.

    `maxima` are the recorded maxima `[features]` that readings will be divided by; given, locks fitted with
    other maxima and features that were never seen active are refused. `width` is that of the residual stream, for
    probes. Policies that are bound to models none of whose `names` they match are left out. `sessions` outlive the
    set. Raises PolicyProblems (a PolicyError).
    """
    running = Running(model_digest, dictionary_digest, features, maxima, width, tuple(names))
    everything = read_folder(folder)
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
    return PolicySet(resolved, set_digest(sources, folder), sessions=sessions)


def read_folder(folder: Path, *, locks: bool = True) -> tuple[Source, ...]:
    """Every policy of a folder, checked on its own, in order of file names; PolicyProblems otherwise.

    Without `locks` no lock is looked at, for whoever is about to write new ones.
    """
    paths = policy_paths(folder)
    sources: list[Source] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            sources.append(read_source(path, locks=locks))
        except PolicyProblems as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyProblems(problems)
    return tuple(sources)


def policy_paths(folder: Path) -> list[Path]:
    """The policy files of a folder; PolicyProblems where there are none or one would be overlooked."""
    if not folder.is_dir():
        raise PolicyProblems(
            [Problem(str(folder), 1, 1, "is not a folder", "name a folder of NAME.yaml files")]
        )
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise PolicyProblems([Problem(str(folder), 1, 1, f"cannot be read: {error.strerror}")]) from error
    overlooked = [
        Problem(str(path), 1, 1, "would not be read", f"rename it to {path.stem}.yaml")
        for path in names
        if path.suffix.lower() in (".yml", ".yaml") and path.suffix != ".yaml"
    ]
    if overlooked:
        raise PolicyProblems(overlooked)
    beside = (".lock.yaml", ".test.yaml")
    paths = [path for path in names if path.suffix == ".yaml" and not path.name.endswith(beside)]
    if not paths:
        raise PolicyProblems([Problem(str(folder), 1, 1, "holds no policy", "write a NAME.yaml there")])
    return paths


def set_digest(sources: Sequence[Source], folder: Path) -> str:
    """`sha256:` over names and contents of every file used."""
    total = hashlib.sha256()
    for path in sorted(path for source in sources for path in source.files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return "sha256:" + total.hexdigest()
