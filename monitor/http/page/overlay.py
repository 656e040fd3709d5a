"""The overlay: the operator's folder in which the page saves labels, policies and benign examples.

labels/DIGEST/labels.json      hand labels of one dictionary
policies/NAME.yaml             policies, as a folder for `--policies` holds them, with their examples
policies/benign/marked.jsonl   decisions that people marked as false positives, for `policy fit --benign`
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monitor.errors import ConfigurationError, InputError, Unavailable
from monitor.policy.schema.policy import NAME

MARKED = "marked.jsonl"
LONGEST_TEXT = 200_000
"""Characters of a benign example."""


class Overlay:
    """The folder of one server. Threads may share it; other processes may read it at any time."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder. Raises ConfigurationError where that is not possible."""
        self.folder, self._lock = folder, threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(
                f"page_overlay: {folder} cannot be used: {error.strerror}; give a folder that this user may write"
            ) from None
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError(f"page_overlay: {folder} cannot be written by this user; give another")

    @property
    def policies(self) -> Path:
        """The folder of its policies; it need not be there."""
        return self.folder / "policies"

    def labels(self, dictionary_digest: str) -> Path:
        """The folder of the labels of one dictionary."""
        return self.folder / "labels" / dictionary_digest.removeprefix("sha256:")[:16]

    def policy_names(self) -> list[str]:
        """Names of the policies that were saved."""
        found = self.policies.glob("*.yaml") if self.policies.is_dir() else ()
        return sorted(path.stem for path in found if re.fullmatch(NAME, path.stem))

    def save_policy(self, name: str, text: str, beside: Sequence[Path] = ()) -> str:
        """Write a policy, and copies of the files that it names; where, relative to the overlay. Blocks.

        Raises InputError for a name that is none.
        """
        if not re.fullmatch(NAME, name):
            raise InputError(f"{name!r} is no name of a policy; write lower-case words with hyphens")
        with self._lock, _writing():
            for path in beside:
                _put(self.policies / path.name, path.read_bytes())
            _put(self.policies / f"{name}.yaml", text.encode())
        return f"policies/{name}.yaml"

    def mark(self, row: Mapping[str, Any]) -> bool:
        """Append a benign example, which has a `group`; False where one of the same group is there already. Blocks.

        Raises InputError where it is empty or too long.
        """
        spoken = row.get("text") or "".join(turn["content"] for turn in row.get("messages", ()))
        if not spoken.strip() or len(spoken) > LONGEST_TEXT:
            raise InputError(f"a benign example has 1 to {LONGEST_TEXT} characters")
        path = self.policies / "benign" / MARKED
        with self._lock, _writing():
            there = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            if any(_group(line) == row["group"] for line in there):
                return False
            _put(
                path, "".join(f"{line}\n" for line in (*there, json.dumps(row, ensure_ascii=False))).encode()
            )
        return True


def _group(line: str) -> Any:
    """The group of a row; None where a person has made something else of the line."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found.get("group") if isinstance(found, dict) else None


def _put(path: Path, content: bytes) -> None:
    """Write a file in one step, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.part")
    draft.write_bytes(content)
    os.replace(draft, path)


@contextmanager
def _writing() -> Iterator[None]:
    """Unavailable, with the system's reason and no path, where a file cannot be written."""
    try:
        yield
    except OSError as error:
        raise Unavailable(f"the page's folder cannot be written: {error.strerror}") from None
