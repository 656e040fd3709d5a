"""Recovery of a decision log after a crash: find the last complete line, and move what follows it out of the way.

It changes files, so only the process that holds the writer's lock may call it.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from monitor.telemetry.decisions.folder import QUARANTINE, Segment, segments, sync_folder
from monitor.telemetry.decisions.reader import scan

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """The end of a log, where the next record is written."""

    segment: Segment | None
    """The newest file; None where there is none yet."""
    size: int
    """Size of that file in bytes."""
    next: int
    """Sequence number of the next record."""
    torn: int
    """Number of bytes that were moved to the folder `torn`."""


def recover(folder: Path) -> End:
    """Cut an incomplete end off the newest file, after copying it to `torn/`. Raises OSError where that fails."""
    known = segments(folder)
    if not known:
        return End(None, 0, 1, 0)
    newest = known[-1]
    good, following = 0, newest.first
    for line in scan(newest.path):
        if line.content is not None:
            good, following = line.end, line.content["seq"] + 1
    size = newest.path.stat().st_size
    if size > good:
        _set_aside(folder, newest, good)
        _log.warning(
            "the decision log ended in a line that was not written whole; it was set aside",
            file=newest.path.name,
            bytes=size - good,
            next_record=following,
        )
    return End(newest, good, following, size - good)


def _set_aside(folder: Path, newest: Segment, good: int) -> None:
    """Move what follows byte `good` to the folder `torn`. The copy is on disk before the file is cut."""
    there = _aside(folder, newest, good)
    with newest.path.open("rb") as file:
        file.seek(good)
        tail = file.read()
    handle = os.open(there, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as copy:
        copy.write(tail)
        copy.flush()
        os.fsync(copy.fileno())
    sync_folder(there.parent)
    handle = os.open(newest.path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(handle, good)
        os.fsync(handle)
    finally:
        os.close(handle)


def set_aside_whole(folder: Path, found: Segment) -> None:
    """Move a file that others have put in the place of the log's next one to the folder `torn`."""
    there = _aside(folder, found, 0)
    found.path.rename(there)
    sync_folder(there.parent)
    _log.warning("a file stood where the decision log's next one belongs; it was set aside", file=there.name)


def _aside(folder: Path, found: Segment, good: int) -> Path:
    """A place in the folder `torn` for what follows byte `good` of a file."""
    aside = folder / QUARANTINE
    aside.mkdir(mode=0o700, exist_ok=True)
    return aside / f"{found.path.stem}-{good}-{time.time_ns()}.bin"
