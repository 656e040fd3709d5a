"""The file that records are appended to now: numbers them, begins new files, removes old ones.

Everything that `append` returned from is on disk. After an error nothing of that call is in the log, and the next
call begins a new file: what the system says of a file after a failed sync is not to be believed. One thread at a
time. Does not know queues.
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
    """The system calls that can fail because of the disk; tests put failing ones in their place."""

    def write(self, handle: int, data: memoryview) -> int:
        """Bytes written, which may be fewer than given."""
        return os.write(handle, data)

    def sync(self, handle: int) -> None:
        """Wait until what was written survives a loss of power."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(handle, size)


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file has had enough."""

    bytes: int = 64 << 20
    seconds: float = 86400.0


class Appended(NamedTuple):
    """What one append put on disk."""

    first: int
    """Sequence number of the first record."""
    size: int
    """Bytes."""


class LogWriter:
    """The writing end of a log; holds the folder's lock from construction to `close`.

    Raises ConfigurationError where another process writes there, OSError where the disk fails.
    """

    def __init__(
        self, folder: Path, rotation: Rotation, retention: Retention, disk: Disk | None = None
    ) -> None:
        self._folder, self._rotation, self._retention = folder, rotation, retention
        self._disk = disk or Disk()
        self._handle: int | None = None
        self._suspect = False
        """The last append failed: the file is to be cut back to `_size` before anything else is written."""
        self.begun = 0
        """Files begun since the start."""
        self._lock = WriterLock(folder)
        try:
            end = recover(folder)
            self.torn = end.torn
            """Bytes that a crash left half written."""
            self.next = end.next
            """Sequence number of the record to come."""
            self._size = end.size
            self._since = time.time()
            if end.segment is not None:
                self._open(end.segment)
            self.tidy()
        except BaseException:
            self._lock.release()
            raise

    def append(self, records: Sequence[bytes]) -> Appended:
        """Write records (`lines.body`) with one sync for all.

        Raises OSError; then none of them is in the log.
        """
        self._mend()
        first = self.next
        data = b"".join(lines.seal(first + index, record) for index, record in enumerate(records))
        if self._full(len(data)):
            self._shut()
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
        """Delete what is not kept any more. OSError where that fails."""
        gone = self._retention.expired(self._folder)
        for found in gone:
            found.path.unlink(missing_ok=True)
        if gone:
            sync_folder(self._folder)

    def close(self) -> None:
        """Let go of file and folder."""
        try:
            self._shut()
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
        """Begin a file."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._segment = segment(self._folder, self.next)
        self._handle = os.open(self._segment.path, flags, 0o600)
        self._size, self._since = 0, time.time()
        self.begun += 1
        sync_folder(self._folder)
        return self._handle

    def _open(self, newest: Segment) -> None:
        """Go on with the newest file."""
        self._segment = newest
        self._handle = os.open(newest.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        os.fchmod(self._handle, 0o600)

    def _shut(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def _mend(self) -> None:
        """Take back what a failed append left behind, and let go of that file."""
        if not self._suspect:
            return
        assert self._handle is not None
        if self._size:
            self._disk.truncate(self._handle, self._size)
            self._disk.sync(self._handle)
        else:
            self._segment.path.unlink(missing_ok=True)
        self._suspect = False
        self._shut()
