"""Policies as they apply to a pair: what they are resolved for, which are bound to others, where its locks lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from monitor.errors import InputError, NotFound, PolicyError
from monitor.policy.files.loader import load_policies, read_folder
from monitor.policy.files.lock_folders import LOCKS, all_locks, checked_name, made_name
from monitor.policy.files.resolve import applies
from monitor.policy.files.source import Running, Source, digests_missing
from monitor.policy.policy import Policy
from monitor.policy.policyset import PolicySet

if TYPE_CHECKING:
    from monitor.lab.pair import Pair


def running_of(pair: Pair) -> Running:
    """The pair's model and dictionary, as policies are resolved for them."""
    from monitor.lab.pair import need_statistics

    return Running(
        pair.loaded.digest,
        pair.dictionary.digest,
        pair.dictionary.autoencoder.features,
        need_statistics(pair.dictionary).maximum.tolist(),
        pair.loaded.d_model,
        (pair.loaded.name, Path(pair.loaded.name).name),
        pair.name,
    )


def lock_folder(folder: Path, running: Running, asked: str | None = None) -> str:
    """The name of the folder below `locks/` that the locks for what runs are written to, in a folder of policies.

    It is `asked`; else the folder that holds locks for it already; else the name of the pair; else a name made of the
    model's and both digests. InputError where `asked` is no name, or another folder holds such locks.
    """
    there = sorted({path.parent.name for path in all_locks(folder) if not digests_missing(path, running)})
    if asked is not None:
        if other := [name for name in there if name != asked]:
            raise InputError(
                f"{folder / LOCKS}/{other[0]} holds locks of this model and dictionary: leave out --locks to write "
                "there, or rename that folder"
            )
        return checked_name(asked)
    if running.pair in there or not there:
        return running.pair or made_name(running.names[0], running.model, running.dictionary)
    return there[0]


def load_set(folder: Path, running: Running) -> PolicySet:
    """The policies of a folder that apply to what runs; PolicyError where they do not fit it."""
    return load_policies(
        folder,
        dictionary_digest=running.dictionary,
        model_digest=running.model,
        features=running.features,
        maxima=running.maxima,
        width=running.width,
        names=running.names,
        pair=running.pair,
    )


def named_policy(folder: Path, name: str, running: Running) -> tuple[Source, Policy]:
    """One policy as it is written and as it runs; NotFound, or PolicyError where it does not apply to what runs."""
    sources = {source.model.metadata.name: source for source in read_folder(folder, running)}
    if name not in sources:
        raise NotFound(f"no policy called {name}; there are {', '.join(sorted(sources))}")
    if where := bound_elsewhere(sources[name], running):
        raise PolicyError(f"`{name}` is {where}, not to this model; name its model with --model")
    resolved = {policy.name: policy for policy in load_set(folder, running).policies}
    return sources[name], resolved[name]


def bound_elsewhere(source: Source, running: Running) -> str:
    """Which models a policy is bound to, where the running one is none of them; otherwise empty."""
    match = source.model.match
    if match is None or match.models is None or applies(source, running):
        return ""
    return f"bound to {', '.join(match.models)}"
