"""Where locks lie: `locks/PAIR/NAME.lock.yaml` below the folder of the policies, one folder for each pair.

The name of such a folder is for people. Which pair a lock belongs to is said by the digests in it, so that a folder may
be called anything. What belongs to a lock, such as the weights of a long probe, lies beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from monitor.errors import InputError
from monitor.policy.files.yaml_document import Problem

LOCKS = "locks"
"""The folder beside the policies that holds the folders of locks."""
ENDING = ".lock.yaml"
_FORM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 60
"""Characters of a model's name that the name of a folder begins with."""


def lock_path(policy: Path, pair: str) -> Path:
    """Where the lock of a policy for a pair lies; `policy` is the file NAME.yaml."""
    return policy.parent / LOCKS / pair / (policy.stem + ENDING)


def policy_of(lock: Path) -> str:
    """The name of the policy that a file of this name is a lock of."""
    return lock.name.removesuffix(ENDING)


def pair_folders(folder: Path) -> list[Path]:
    """The folders of locks below a folder of policies, one for each pair, by their names.

    Those whose names begin with a dot are left out: a mounted ConfigMap has some.
    """
    try:
        found = [path for path in (folder / LOCKS).iterdir() if path.is_dir()]
    except OSError:
        return []
    return sorted(path for path in found if not path.name.startswith("."))


def locks_of(policy: Path) -> dict[str, Path]:
    """The locks of a policy that are there, by the names of their folders."""
    found = {folder.name: lock_path(policy, folder.name) for folder in pair_folders(policy.parent)}
    return {pair: path for pair, path in found.items() if path.exists()}


def all_locks(folder: Path) -> Iterator[Path]:
    """Every lock below a folder of policies."""
    for pair in pair_folders(folder):
        yield from sorted(pair.glob(f"*{ENDING}"))


def misplaced(folder: Path) -> list[Problem]:
    """A problem for every lock that lies beside the policies, or beside the folders of pairs."""
    return [
        Problem(
            str(path),
            1,
            1,
            "is not read here: each pair has a folder of locks of its own",
            f"move it to {folder / LOCKS}/PAIR/{path.name}, and {policy_of(path)}.probe.safetensors with it where it "
            "has one; PAIR is any name for its model and dictionary, such as tiny for the pair of that name",
        )
        for place in (folder, folder / LOCKS)
        for path in sorted(place.glob(f"*{ENDING}"))
    ]


def checked_name(pair: str) -> str:
    """The name itself; InputError where it cannot be that of a folder of locks."""
    if _FORM.fullmatch(pair) is None:
        raise InputError(
            f"{pair!r} cannot name a folder of locks; write letters, digits, `-`, `_` and dots, such as llama-3-8b"
        )
    return pair


def made_name(model: str, model_digest: str, dictionary_digest: str) -> str:
    """A name for the locks of a pair that has none: the last part of its model's, and how both digests begin."""
    base = _ODD.sub("-", Path(model).name).strip("-._")[:_LONGEST] or "model"
    model_part, dictionary_part = (
        digest.removeprefix("sha256:")[:8] for digest in (model_digest, dictionary_digest)
    )
    return f"{base}-{model_part}-{dictionary_part}"
