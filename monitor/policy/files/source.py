"""A policy as it is written: its file, examples, lock and probe, each read and checked on its own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from monitor.policy.files.diagnostics import validate
from monitor.policy.files.examples import BENIGN_FILE, Example, concept_examples, read_examples
from monitor.policy.files.lock import MAX_LOCK_BYTES, LockModel, lock_path
from monitor.policy.files.probe_weights import read_weights
from monitor.policy.files.yaml_document import PolicyProblems, Problem, YamlDocument, read_document
from monitor.policy.schema.policy import FILE, NAME, PolicyModel

_BESIDE = (".lock.yaml", ".test.yaml")
"""Ends of the names of files that belong to a policy."""


@dataclass(frozen=True)
class Source:
    """A policy as written, with its examples, and with its lock where there is one."""

    path: Path
    document: YamlDocument
    model: PolicyModel
    examples: tuple[Example, ...]
    lock: LockModel | None
    lock_document: YamlDocument | None
    files: tuple[Path, ...]
    """Every file that it was read from."""
    weights: tuple[float, ...] | None = None
    """Weights `[d_model]` of the probe of the policy or its lock; None where neither has one."""


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


def policy_paths(folder: Path) -> list[Path]:
    """The policy files of a folder; PolicyProblems where there are none, or where one has another suffix."""
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
    paths = [path for path in names if path.suffix == ".yaml" and not path.name.endswith(_BESIDE)]
    if not paths:
        raise PolicyProblems([Problem(str(folder), 1, 1, "holds no policy", "write a NAME.yaml there")])
    return paths


def orphans(folder: Path) -> list[Problem]:
    """A problem for every lock and every test file of a folder whose policy is not there."""
    stems = [path.stem for path in policy_paths(folder)]
    found = []
    for path in sorted(folder.iterdir()):
        end = next((end for end in _BESIDE if path.name.endswith(end)), "")
        stem = path.name.removesuffix(end)
        if end and stem not in stems:
            close = difflib.get_close_matches(stem, stems, n=1)
            hint = f"rename it to {close[0]}{end}" if close else "put the policy back, or remove this file"
            found.append(Problem(str(path), 1, 1, f"belongs to a policy {stem}.yaml that is not here", hint))
    return found


def unused(folder: Path, sources: Sequence[Source]) -> list[Problem]:
    """A problem for every file of examples or weights in a folder that none of its policies names."""
    named = {path for source in sources for path in source.files} | {folder / BENIGN_FILE}
    return [
        Problem(str(path), 1, 1, "belongs to no policy here", "name it in a policy, or remove it")
        for path in sorted(folder.iterdir())
        if path.suffix in (".jsonl", ".safetensors") and path not in named
    ]


def read_source(path: Path, *, locks: bool = True) -> Source:
    """Read a policy with its examples, lock and probe; PolicyProblems with every problem of these files.

    With `locks=False` the lock is not read.
    """
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


def _misnamed(path: Path, document: YamlDocument, name: object) -> list[Problem]:
    """A problem where the policy's name differs from its file's; none where the name itself is malformed."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name) or name == path.stem:
        return []
    hint = f"rename the file to {name}.yaml, or the policy"
    return [document.problem(["metadata", "name"], f"the name differs from the file's, `{path.stem}`", hint)]


def _beside(path: Path, document: YamlDocument, *, locks: bool) -> list[Problem]:
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
