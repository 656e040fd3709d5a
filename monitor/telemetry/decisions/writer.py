"""The writing end of a decision log: appends records to files, numbers them, begins new files and deletes old ones.

When `append` returns, its records are on disk. When it raises, none of them is in the log, and the next call begins a
new file, because the state of a file after a failed sync cannot be trusted. Only one thread may use a writer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.folder import Retention, Segment, WriterLock, segment, sync_folder
from monitor.telemetry.decisions.recovery import recover


class Disk:
    """The system calls that may fail because of the disk. Tests replace this class by one whose calls fail."""

    def write(self, handle: int, data: memoryview) -> int:
        """Write data. Returns the number of bytes written, which may be fewer than given."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Wait until written data survives a loss of power."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.ftruncate(handle, size)


@dataclass(frozen=True, slots=True)
class Rotation:
    """The limits at which a new file is begun."""

    bytes: int = 64 << 20
    """A new file is begun before one would exceed this size."""
    seconds: float = 86400.0
    """A new file is begun once one is this old."""


class Appended(NamedTuple):
    """What one `append` wrote."""

    first: int
    """Sequence number of the first record."""
    size: int
    """Size in bytes of all records together."""


class LogWriter:
    """Writes one folder, and holds its lock from construction to `close`.

    The constructor raises ConfigurationError where another process writes there, and OSError where the disk fails.
    """

    def __init__(
        self, folder: Path, rotation: Rotation, retention: Retention, disk: Disk | None = None
    ) -> None:
        self._folder, self._rotation, self._retention = folder, rotation, retention
        self._disk = disk or Disk()
        self._handle: int | None = None
        self._suspect = False
        """True after a failed append: the file must be cut to `_size` before anything else is written."""
        self.begun = 0
        """Number of files begun since the start."""
        self._lock = WriterLock(folder)
        try:
            end = recover(folder)
            self.torn = end.torn
            """Bytes that a crash had left incomplete."""
            self.next = end.next
            """Sequence number of the next record."""
            self._size = end.size
            self._since = time.time()
            if end.segment is not None:
                self._open(end.segment)
            self.tidy()
        except BaseException:
            self._lock.release()
            raise

    def append(self, records: Sequence[bytes]) -> Appended:
        """Write records from `lines.body` with one sync for all.

        Raises OSError where that fails; then none of them is in the log.
        """
        self._mend()
        first = self.next
        data = b"".join(lines.seal(first + index, record) for index, record in enumerate(records))
        if self._full(len(data)):
            self._close_file()
        try:
            handle = self._handle if self._handle is not None else self._begin()
            self._write(handle, data)
            self._disk.sync(handle)
        except BaseException:
            self._suspect = self._handle is not None
            raise
        self._size += len(data)
        self.next += len(records)
        return Appended(first, len(data))

    def tidy(self) -> None:
        """Delete files that retention does not keep. Raises OSError where that fails."""
        gone = self._retention.expired(self._folder)
        for found in gone:
            found.path.unlink(missing_ok=True)
        if gone:
            sync_folder(self._folder)

    def close(self) -> None:
        """Close the file and release the folder's lock."""
        try:
            self._close_file()
        finally:
            self._lock.release()

    def _write(self, handle: int, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._disk.write(handle, rest) :]

    def _full(self, more: int) -> bool:
        if self._handle is None or not self._size:
            return False
        old = time.time() - self._since >= self._rotation.seconds
        return old or self._size + more > self._rotation.bytes

    def _begin(self) -> int:
        """Begin a new file."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._segment = segment(self._folder, self.next)
        self._handle = os.open(self._segment.path, flags, 0o600)
        self._size, self._since = 0, time.time()
        self.begun += 1
        sync_folder(self._folder)
        return self._handle

    def _open(self, newest: Segment) -> None:
        """Continue the newest file."""
        self._segment = newest
        self._handle = os.open(newest.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.fchmod(self._handle, 0o600)

    def _close_file(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def _mend(self) -> None:
        """Cut off what a failed append left in the file, and close it."""
        if not self._suspect:
            return
        assert self._handle is not None
        if self._size:
            self._disk.truncate(self._handle, self._size)
            self._disk.sync(self._handle)
        else:
            self._segment.path.unlink(missing_ok=True)
        self._suspect = False
        self._close_file()
