"""The writing end of a decision log: appends records to files, numbers them, begins new files and deletes old ones.

When `append` returns, its records are on disk, in a file that stands in the folder. When it raises, none of them is in
the log, and the next call begins a new file, because the state of a file after a failed sync cannot be trusted. Others
may remove, move or cut files: the writer looks before and after it writes. Only one thread may use a writer.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import structlog

from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.folder import (
    LogState,
    Retention,
    Segment,
    WriterLock,
    same_file,
    segment,
    segments,
    sync_folder,
)
from monitor.telemetry.decisions.reader import scan
from monitor.telemetry.decisions.recovery import recover, set_aside_whole

_log = structlog.get_logger(__name__)


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


Cause = Literal["removed", "moved", "truncated", "changed"]
"""What others did to a file of the log: removed it, moved or replaced it, cut it, or wrote into it."""

_DID = {
    "removed": "was removed by others",
    "moved": "was moved away or replaced by others",
    "truncated": "was cut by others",
    "changed": "was written to by others",
}


class Displaced(OSError):
    """Others removed, moved, cut or changed the file that the log was writing. The next `append` begins a new file."""

    def __init__(self, cause: Cause, file: str, records: int) -> None:
        self.cause: Cause = cause
        self.records = records
        """Number of records that are no longer in the folder."""
        super().__init__(errno.ESTALE, f"{file} {_DID[cause]}")


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
        self.state = LogState.begun()
        """What is known of the log beside its records."""
        self.next = 1
        """Sequence number of the next record."""
        try:
            self._enter(fresh=True)
            self.tidy()
        except BaseException:
            self._lock.release()
            raise

    def append(self, records: Sequence[bytes]) -> Appended:
        """Write records from `lines.body` with one sync for all.

        Raises OSError where that fails, and Displaced where others did something to the file; then none of them is in
        the log.
        """
        self._settled()
        self._mend()
        first = self.next
        data = b"".join(lines.seal(first + index, record) for index, record in enumerate(records))
        if self._full(len(data)):
            self._close_file()
        try:
            handle = self._handle if self._handle is not None else self._begin()
            self._write(handle, data)
            self._disk.sync(handle)
            self._in_place(self._size + len(data))
        except BaseException:
            self._suspect = self._handle is not None
            raise
        self._size += len(data)
        self.next += len(records)
        return Appended(first, len(data))

    def tidy(self) -> None:
        """Delete files that retention does not keep. Raises OSError where that fails."""
        gone = self._retention.expired(self._folder)
        if not gone:
            return
        kept = next(found.first for found in segments(self._folder) if found.first > gone[-1].first)
        # Before the files go, so that nobody takes for lost what was deleted.
        self._note(deleted=kept - 1)
        for found in gone:
            found.path.unlink(missing_ok=True)
        sync_folder(self._folder)

    def close(self) -> None:
        """Close the file and release the folder's lock."""
        try:
            self._close_file()
            with suppress(OSError):  # The number is a lower bound, and what is written already is one too.
                if self._lock.held():
                    self._note(next=self.next)
        finally:
            self._lock.release()

    def _enter(self, *, fresh: bool) -> None:
        """Take up the log in the folder where it ends. `fresh` is false where this writer has written before."""
        end = recover(self._folder)
        self.torn = end.torn
        """Bytes that a crash had left incomplete."""
        known = LogState.read(self._folder)
        if known is not None and end.next < known.next:
            _log.warning(
                "the newest records of the decision log are gone; numbers go on, and cursors of it are void",
                first=end.next,
                last_known=known.next - 1,
            )
        if known is not None and (not fresh or end.next >= known.next):
            self.state = known
        elif (
            known is not None
        ):  # Numbers may have been given that nobody knows of: the old name says nothing now.
            self.state = replace(known, id=self.state.id)
        self.next = max(end.next, self.next, self.state.next)
        with suppress(
            OSError
        ):  # A full disk is no reason not to start; the next file is not begun without it.
            self._note(next=self.next)
        self._size = end.size
        self._since = time.time()
        if end.segment is not None and end.next == self.next:
            self._open(end.segment)

    def _note(self, **changes: Any) -> None:
        """Change what the folder says of the log. Raises OSError where that fails."""
        self.state = replace(self.state, **changes)
        self.state.write(self._folder)

    def _settled(self) -> None:
        """Make sure that this writer still owns the folder and its file.

        Raises Displaced where others did something to the file, OSError where the folder is gone, and
        ConfigurationError where another process writes there.
        """
        self._in_place(None if self._suspect else self._size)
        if not self._lock.held():
            # The folder itself is not made anew: where it is gone, a volume may have been unmounted.
            lock = WriterLock(self._folder, create=False)
            self._lock.release()
            self._lock = lock
            self._close_file()
            self._suspect = False
            self._enter(fresh=False)

    def _in_place(self, size: int | None) -> None:
        """Raise Displaced unless the file stands in the folder and has this size; None for any."""
        if self._handle is None:
            return
        cause: Cause | None = None
        held = os.fstat(self._handle)
        if not same_file(self._handle, self._segment.path):
            cause = "moved" if held.st_nlink else "removed"
        elif size is not None and held.st_size != size:
            cause = "truncated" if held.st_size < size else "changed"
        if cause is None:
            return
        self._close_file()
        self._suspect = False
        raise Displaced(cause, self._segment.path.name, self._lost(cause))

    def _lost(self, cause: Cause) -> int:
        """Number of records of the file that are no longer in the folder."""
        written = self.next - self._segment.first
        if cause in ("removed", "moved"):
            return written
        return written - sum(line.content is not None for line in scan(self._segment.path))

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
        self._note(next=self.next)
        if self._segment.path.exists():
            set_aside_whole(self._folder, self._segment)
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
