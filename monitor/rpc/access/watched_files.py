"""A value that is read from files, and read again when they change. Where a reading fails, the old value stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from monitor.errors import ConfigurationError

T = TypeVar("T")
_log = structlog.get_logger(__name__)


class WatchedFiles(Generic[T]):
    """A value and the files that it is read from. Any thread.

    The first reading may raise. Later ones that fail are logged and counted, and the value stays.
    """

    def __init__(
        self,
        kind: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        noted: Callable[[str, bool], None],
        every: float = 1.0,
    ) -> None:
        """Read the files for the first time.

        `noted(kind, worked)` is called after each reading. Files are checked at most once in `every` seconds.
        """
        self._kind, self._paths, self._read, self._noted, self._every = kind, paths, read, noted, every
        self._lock = threading.Lock()
        # Checked before the reading, so that a change during the reading is noticed next time.
        self._seen = self._look()
        self._value = read()
        self._looked = time.monotonic()
        noted(kind, True)

    def value(self) -> T:
        """The value from the files as they are now, or from their last version that could be read."""
        with self._lock:
            if time.monotonic() - self._looked >= self._every:
                self._looked = time.monotonic()
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        seen = self._look()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._value = self._read()
        except ConfigurationError as error:
            self._noted(self._kind, False)
            _log.error(
                "files were not read again; the last good ones stay in use",
                kind=self._kind,
                problem=str(error),
            )
            return
        self._noted(self._kind, True)
        _log.info("files were read again", kind=self._kind)

    def _look(self) -> tuple[object, ...]:
        return tuple(_state(path) for path in self._paths)


def _state(path: Path) -> object:
    # This follows links: Kubernetes swaps a link when a secret changes.
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev
