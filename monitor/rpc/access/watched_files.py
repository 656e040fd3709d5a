"""A value that is read from files and read again when they change; the last good one stays in use.

Knows file times and sizes. Does not know what is in the files. May be asked from any thread.
"""

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
    """The first reading raises; later ones that fail are logged and counted and change nothing."""

    def __init__(
        self,
        kind: str,
        paths: Sequence[Path],
        read: Callable[[], T],
        noted: Callable[[str, bool], None],
        every: float = 1.0,
    ) -> None:
        """`noted(kind, worked)` is told of each reading; files are looked at `every` so many seconds at most."""
        self._kind, self._paths, self._read, self._noted, self._every = kind, paths, read, noted, every
        self._lock = threading.Lock()
        # Looked at before the reading, so that a change in between is seen the next time.
        self._seen = self._look()
        self._value = read()
        self._looked = time.monotonic()
        noted(kind, True)

    def value(self) -> T:
        """What the files say now, or said when they were last good."""
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
    # Follows links: Kubernetes swaps a link to a folder when a secret changes.
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size, state.st_ino, state.st_dev
