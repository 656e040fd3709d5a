"""A policy as it is written: its file, examples, lock and probe, each read and checked on its own.

A folder may hold locks of a policy for several pairs. Which of them is read, the caller says: that of what runs, found
by the digests of model and dictionary, or that in a folder of a certain name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from monitor.policy.files.diagnostics import validate
from monitor.policy.files.examples import BENIGN_FILE, Example, concept_examples, read_examples
from monitor.policy.files.lock import MAX_LOCK_BYTES, LockModel
from monitor.policy.files.lock_folders import (
    ENDING,
    all_locks,
    lock_path,
    locks_of,
    misplaced,
    pair_folders,
    policy_of,
)
from monitor.policy.files.probe_weights import read_weights
from monitor.policy.files.yaml_document import (
    PolicyProblems,
    Problem,
    YamlDocument,
    read_bounded,
    read_document,
)
from monitor.policy.schema.policy import FILE, NAME, PolicyModel

_TEST = ".test.yaml"
"""End of the name of the file with a policy's tests."""
_BESIDE = (ENDING, _TEST)
"""Ends of the names of YAML files that are no policies."""


@dataclass(frozen=True)
class Source:
    """A policy as written, with its examples, and with its lock where there is one."""

    path: Path
    document: YamlDocument
    model: PolicyModel
    examples: tuple[Example, ...]
    lock: LockModel | None
    """The lock for one pair; None where that has none, or nobody asked for one."""
    lock_document: YamlDocument | None
    files: tuple[Path, ...]
    """Every file that it was read from."""
    weights: tuple[float, ...] | None = None
    """Weights `[d_model]` of the probe of the policy or its lock; None where neither has one."""
    lock_file: Path | None = None
    """Where the lock lies."""

    @property
    def probe_folder(self) -> Path:
        """The folder that holds the weights of its probe: its own folder for a probe of its own, else the lock's."""
        if self.model.probe is not None or self.lock_file is None:
            return self.path.parent
        return self.lock_file.parent


@dataclass(frozen=True)
class Running:
    """The model and dictionary that policies are resolved for. What is None or empty is not checked."""

    model: str
    """Digest of the model."""
    dictionary: str
    """Digest of the dictionary."""
    features: int
    """Number of features in the dictionary."""
    maxima: Sequence[float] | None = None
    """`[features]`: recorded maxima that readings are divided by."""
    width: int | None = None
    """Width of the residual stream."""
    names: tuple[str, ...] = ()
    """Names of the model, which `match.models` is compared with."""
    pair: str = ""
    """Name of the pair, where it is one that has a name (`monitor.pairs`)."""

    @property
    def flags(self) -> str:
        """The flags by which a command opens this pair."""
        return f"--pair {self.pair}" if self.pair else "--model MODEL --dictionary DICTIONARY"


LockOf = Running | str | None
"""Whose lock is read: that of what runs, that in the folder of this name below `locks/`, or none."""


def policy_paths(folder: Path) -> list[Path]:
    """The policy files of a folder; PolicyProblems where there are none, where one has another suffix, and where a lock
    lies where none is read.
    """
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
    overlooked += misplaced(folder)
    if overlooked:
        raise PolicyProblems(overlooked)
    paths = [path for path in names if path.suffix == ".yaml" and not path.name.endswith(_BESIDE)]
    if not paths:
        raise PolicyProblems([Problem(str(folder), 1, 1, "holds no policy", "write a NAME.yaml there")])
    return paths


def orphans(folder: Path) -> list[Problem]:
    """A problem for every lock and every test file of a folder whose policy is not there."""
    stems = [path.stem for path in policy_paths(folder)]
    tests = [(path, path.name.removesuffix(_TEST), _TEST) for path in sorted(folder.glob(f"*{_TEST}"))]
    found = []
    for path, stem, end in [*tests, *((lock, policy_of(lock), ENDING) for lock in all_locks(folder))]:
        if stem not in stems:
            close = difflib.get_close_matches(stem, stems, n=1)
            hint = f"rename it to {close[0]}{end}" if close else "put the policy back, or remove this file"
            found.append(Problem(str(path), 1, 1, f"belongs to a policy {stem}.yaml that is not here", hint))
    return found


def unused(folder: Path, files: Sequence[Path]) -> list[Problem]:
    """A problem for every file of examples or weights in a folder, or beside its locks, that is not among `files`."""
    named = {*files, folder / BENIGN_FILE}
    return [
        Problem(str(path), 1, 1, "belongs to no policy here", "name it in a policy, or remove it")
        for place in (folder, *pair_folders(folder))
        for path in sorted(place.iterdir())
        if path.suffix in (".jsonl", ".safetensors") and path not in named
    ]


def read_source(path: Path, lock: LockOf) -> Source:
    """Read a policy with its examples, a lock and its probe; PolicyProblems with every problem of these files."""
    document = read_document(path)
    try:
        model = validate(document, PolicyModel)
    except PolicyProblems as error:
        raise PolicyProblems([*error.problems, *_beside(path, document, lock)]) from error
    problems = _misnamed(path, document, model.metadata.name)
    source = Source(path, document, model, (), None, None, (path,))
    for part in (_with_examples, partial(_with_lock, of=lock), _with_probe):
        try:
            source = part(source)
        except PolicyProblems as error:
            problems.extend(error.problems)
    if problems:
        raise PolicyProblems(problems)
    return source


def with_lock(source: Source, of: LockOf) -> Source:
    """A policy that was read without a lock, with one, and with the weights of its probe; PolicyProblems as there."""
    return _with_probe(_with_lock(source, of))


def read_lock(path: Path) -> tuple[YamlDocument, LockModel]:
    """A lock file, parsed and checked on its own; PolicyProblems where something is wrong with it."""
    document = read_document(path, limit=MAX_LOCK_BYTES)
    return document, validate(document, LockModel)


def digests_missing(lock: Path, running: Running) -> tuple[str, ...]:
    """Which of `model` and `dictionary` a lock file does not name by the digest of what runs.

    It looks for the digests as text, so that locks of other pairs are neither parsed nor checked. None is missing of a
    file that cannot be read: reading it as a lock then says why.
    """
    try:
        raw = read_bounded(lock, MAX_LOCK_BYTES)
    except OSError:
        return ()
    wanted = (("model", running.model), ("dictionary", running.dictionary))
    return tuple(what for what, digest in wanted if digest.encode() not in raw)


def _found(policy: Path, of: LockOf) -> tuple[Path, YamlDocument, LockModel] | None:
    """The lock that is asked for, and where it lies; None where there is none."""
    if of is None:
        return None
    if isinstance(of, str):
        path = lock_path(policy, of)
        return (path, *read_lock(path)) if path.exists() else None
    near = [path for path in locks_of(policy).values() if not digests_missing(path, of)]
    read = [(path, *read_lock(path)) for path in near]
    found = [one for one in read if _is_of(one[2], of)]
    if len(found) > 1:
        first, *others = (path for path, *_ in found)
        hint = "remove all but one; the name of the folder does not matter"
        raise PolicyProblems(
            [Problem(str(other), 1, 1, f"is of the same pair as {first}", hint) for other in others]
        )
    return found[0] if found else None


def _is_of(lock: LockModel, running: Running) -> bool:
    return (lock.model.digest, lock.dictionary.digest) == (running.model, running.dictionary)


def _misnamed(path: Path, document: YamlDocument, name: object) -> list[Problem]:
    """A problem where the policy's name differs from its file's; none where the name itself is malformed."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == path.stem:
        return []
    hint = f"rename the file to {name}.yaml, or the policy"
    return [document.problem(["metadata", "name"], f"the name differs from the file's, `{path.stem}`", hint)]


def _beside(path: Path, document: YamlDocument, lock: LockOf) -> list[Problem]:
    """Problems of the name and of the files beside a policy that has problems itself."""
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
        _found(path, lock)
    except PolicyProblems as error:
        problems.extend(error.problems)
    return problems


def _with_examples(source: Source) -> Source:
    concept, folder = source.model.concept, source.path.parent
    if concept is None:
        return source
    files = (folder / concept.examples,) if concept.examples else ()
    return replace(source, examples=concept_examples(concept, folder), files=(*source.files, *files))


def _with_lock(source: Source, of: LockOf) -> Source:
    found = _found(source.path, of)
    if found is None:
        return source
    path, document, lock = found
    return replace(source, lock=lock, lock_document=document, lock_file=path, files=(*source.files, path))


def _with_probe(source: Source) -> Source:
    own, lock = source.model.probe, source.lock
    probe, document = own or (lock.probe if lock else None), source.document if own else source.lock_document
    if probe is None or document is None:
        return source
    try:
        weights = read_weights(probe, source.probe_folder)
    except ValueError as error:
        at = ["probe", "weights_file"]
        raise PolicyProblems(
            [document.problem(at, str(error), "run `sae-monitor policy fit` again")]
        ) from error
    named = [source.probe_folder / probe.weights_file] if probe.weights_file else []
    files = (file for file in named if file not in source.files)
    return replace(source, weights=weights, files=(*source.files, *files))
