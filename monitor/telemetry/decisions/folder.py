"""The folder of a decision log: the names of its files, the lock of its writer, what is known of the log beside its
records, and which files are old enough to delete.

A file is named after the sequence number of its first record.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from monitor.errors import ConfigurationError

_NAME = re.compile(r"decisions-(\d{16})\.jsonl")
_LOCK = "writer.lock"
_STATE = "log.json"
QUARANTINE = "torn"
"""Folder beside the files for lines that a crash left incomplete."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of the log."""

    path: Path
    first: int
    """Sequence number of its first record."""


def segment(folder: Path, first: int) -> Segment:
    """The file whose first record has this sequence number."""
    return Segment(folder / f"decisions-{first:016d}.jsonl", first)


def segments(folder: Path) -> list[Segment]:
    """All files of a log in order. Raises OSError where the folder cannot be read."""
    matches = ((path, _NAME.fullmatch(path.name)) for path in folder.iterdir())
    return sorted((Segment(path, int(m[1])) for path, m in matches if m), key=lambda found: found.first)


def sync_folder(folder: Path) -> None:
    """Sync a folder, so that files created or removed in it survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class LogState:
    """What is known of a log beside its records."""

    id: str
    """Name of the log. Numbers of records mean something within one log only."""
    next: int = 1
    """Every sequence number below this one has been given, whether or not its record is still there."""
    deleted: int = 0
    """Retention has deleted the records up to this sequence number."""

    @classmethod
    def begun(cls) -> LogState:
        """The state of a log that begins now."""
        return cls(secrets.token_hex(6))

    @classmethod
    def read(cls, folder: Path) -> LogState | None:
        """The state of the log in a folder; None where there is none that can be read."""
        try:
            found = json.loads((folder / _STATE).read_bytes())
            return cls(str(found["id"]), int(found["next"]), int(found["deleted"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write the state, so that a reader sees the old one or this one. Raises OSError where that fails."""
        partial = folder / f"{_STATE}.partial"
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, json.dumps(asdict(self)).encode() + b"\n")
            os.fsync(handle)
        finally:
            os.close(handle)
        partial.replace(folder / _STATE)
        sync_folder(folder)


class WriterLock:
    """Lock of the one process that writes a folder. The system releases it when the process dies."""

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        """Acquire the lock of a folder, which is created where it is missing.

        Raises ConfigurationError where that fails. With `create=False` a missing folder is not created, and one that
        cannot be written raises OSError.
        """
        self._path = folder / _LOCK
        try:
            if create:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if not create:
                raise
            raise ConfigurationError(
                f"decision_log: {folder} cannot be written: {error.strerror}; give another folder, or `off`"
            ) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._handle)
            raise ConfigurationError(
                f"decision_log: process {holder} writes to {folder} already; give each server a folder of its own"
            ) from None
        with suppress(
            OSError
        ):  # The number is for messages only. If the disk is full, the log will report it.
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{os.getpid()}\n".encode(), 0)

    def held(self) -> bool:
        """False once others have removed or replaced the lock's file, so that another process could lock the folder."""
        return same_file(self._handle, self._path)

    def release(self) -> None:
        """Release the lock, so that another process can write."""
        os.close(self._handle)


def same_file(handle: int, path: Path) -> bool:
    """Whether the file that is open as `handle` is the one at `path`. Raises OSError where nobody can tell."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except (FileNotFoundError, NotADirectoryError):
        return False


def has_writer(folder: Path) -> bool:
    """True while a process holds the writer's lock of a folder."""
    try:
        handle = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@dataclass(frozen=True, slots=True)
class Retention:
    """Limits on what is kept; None for no limit."""

    files: int | None = None
    """Number of files."""
    bytes: int | None = None
    """Size of all files together."""
    seconds: float | None = None
    """Age of a file since its last record."""

    def expired(self, folder: Path, now: float | None = None) -> list[Segment]:
        """Files beyond the limits, oldest first. The newest file is always kept."""
        known = [(found, stat) for found in segments(folder) if (stat := _stat(found.path)) is not None]
        total, count = sum(stat.st_size for _, stat in known), len(known)
        limit = (time.time() if now is None else now) - (self.seconds or 0.0)
        gone = []
        for found, stat in known[:-1]:
            many = self.files is not None and count > self.files
            large = self.bytes is not None and total > self.bytes
            old = self.seconds is not None and stat.st_mtime < limit
            if not (many or large or old):
                break
            gone.append(found)
            total, count = total - stat.st_size, count - 1
        return gone


def _stat(path: Path) -> os.stat_result | None:
    """What the system says of a file; None where others have removed it meanwhile."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None
