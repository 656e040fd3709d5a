"""Files that commands on policies write: refused before the work, not after it.

Knows paths. Does not know what is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from monitor.errors import InputError


def writable(path: Path | None) -> None:
    """InputError where a file could not be written there."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if not path.parent.is_dir():
        raise InputError(f"no folder at {path.parent}; make it, or name a file elsewhere")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written; name a file elsewhere")


def write(path: Path, how: Callable[[Path], object]) -> None:
    """Write a file; InputError where the disk does not let it."""
    try:
        how(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name a file elsewhere") from error


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; InputError where the disk does not let it."""
    write(path, lambda there: there.write_text(text, "utf-8"))
