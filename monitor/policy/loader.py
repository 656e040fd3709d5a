"""A folder of policy files becomes a PolicySet, or one error that lists every problem of every file.

Knows which files belong together (NAME.yaml, NAME.lock.yaml, examples) and what must agree between them and
with what runs. Does not know how a lock is fitted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monitor.policy.document import Document, PolicyProblems, Problem, read_document
from monitor.policy.examples import Example, concept_examples, read_examples
from monitor.policy.lock import MAX_LOCK_BYTES, LockModel, lock_path
from monitor.policy.policyset import PolicySet
from monitor.policy.probe_file import read_weights
from monitor.policy.resolve import Running, applies, resolve
from monitor.policy.schema import FILE, NAME, PolicyModel
from monitor.policy.sessions import SessionStore
from monitor.policy.validation import validate


@dataclass(frozen=True)
class Source:
    """A policy as written, with its examples and its lock where there is one."""

    path: Path
    document: Document
    model: PolicyModel
    examples: tuple[Example, ...]
    lock: LockModel | None
    lock_document: Document | None
    files: tuple[Path, ...]
    """Every file it was read from."""
    weights: tuple[float, ...] | None = None
    """Of its probe, where it or its lock has one."""


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


def read_source(path: Path, *, locks: bool = True) -> Source:
    """One policy with its examples and lock; PolicyProblems with everything that is wrong with them."""
    document = read_document(path)
    try:
        model = validate(document, PolicyModel)
    except PolicyProblems as error:
        raise PolicyProblems([*error.problems, *_beside(path, document, locks=locks)]) from error
    problems = _misnamed(path, document, model.metadata.name)
    source = Source(path, document, model, (), None, None, (path,))
    for part in (_with_examples, _with_lock if locks else None, _with_probe):
        try:
            source = part(source) if part is not None else source
        except PolicyProblems as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyProblems(problems)
    return source


def _misnamed(path: Path, document: Document, name: object) -> list[Problem]:
    """A problem where the policy is not called as its file is; none where its name is no name."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == path.stem:
        return []
    hint = f"rename the file to {name}.yaml, or the policy"
    return [document.problem(["metadata", "name"], f"the name differs from the file's, `{path.stem}`", hint)]


def _beside(path: Path, document: Document, *, locks: bool) -> list[Problem]:
    """What is wrong with the name of a policy that is wrong itself, and with the files beside it."""
    data = document.data if isinstance(document.data, dict) else {}
    concept = data.get("concept")
    examples = concept.get("examples") if isinstance(concept, dict) else None
    metadata = data.get("metadata")
    problems = _misnamed(path, document, metadata.get("name") if isinstance(metadata, dict) else None)
    try:
        if isinstance(examples, str) and re.match(FILE, examples):
            read_examples(path.parent / examples)
    except PolicyProblems as error:
        problems.extend(error.problems)
    try:
        if locks and lock_path(path).exists():
            validate(read_document(lock_path(path), limit=MAX_LOCK_BYTES), LockModel)
    except PolicyProblems as error:
        problems.extend(error.problems)
    return problems


def _with_examples(source: Source) -> Source:
    concept, folder = source.model.concept, source.path.parent
    if concept is None:
        return source
    files = (folder / concept.examples,) if concept.examples else ()
    return replace(source, examples=concept_examples(concept, folder), files=(*source.files, *files))


def _with_lock(source: Source) -> Source:
    path = lock_path(source.path)
    if not path.exists():
        return source
    document = read_document(path, limit=MAX_LOCK_BYTES)
    lock = validate(document, LockModel)
    return replace(source, lock=lock, lock_document=document, files=(*source.files, path))


def _with_probe(source: Source) -> Source:
    own, lock = source.model.probe, source.lock
    probe, document = own or (lock.probe if lock else None), source.document if own else source.lock_document
    if probe is None or document is None:
        return source
    try:
        weights = read_weights(probe, source.path.parent)
    except ValueError as error:
        at = ["probe", "weights_file"]
        raise PolicyProblems(
            [document.problem(at, str(error), "run `sae-monitor policy fit` again")]
        ) from error
    files = (source.path.parent / probe.weights_file,) if probe.weights_file else ()
    return replace(source, weights=weights, files=(*source.files, *files))


def set_digest(sources: Sequence[Source], folder: Path) -> str:
    """`sha256:` over names and contents of every file used."""
    total = hashlib.sha256()
    for path in sorted(path for source in sources for path in source.files):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder)}\0{content}\n".encode())
    return "sha256:" + total.hexdigest()
