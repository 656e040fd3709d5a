"""The decision log of a server: a queue of records in front of the thread that writes them to disk.

Records that arrive while the thread waits for the disk are written together, with one sync. Where the disk
fails, requests are refused or records are dropped, as the operator chose. Where others take a file away, the log goes
on in a new one, which begins with a line that says how many records are gone.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import structlog

from monitor.errors import ConfigurationError, Unavailable
from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.writer import Appended, Displaced, LogWriter

REFUSED = (
    "the decision could not be logged, and this server answers nothing that it cannot log; try another one"
)
GAP = "gap"
"""Kind of a line that says that records before it are missing, how many and why."""

_PROBE = 1.0
"""Seconds between two attempts to write after a failure."""
_TIDY = 60.0
"""Seconds between two checks for files that are too old."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors that mean that the disk is full."""

_log = structlog.get_logger(__name__)

Make = Callable[[], Mapping[str, Any]]
"""Builds the content of a record. Called on the log's thread, because masks and hashes take time."""


class LogMeter(Protocol):
    """Receives the log's counts; implemented by `monitor.telemetry.metrics.decisions.DecisionLogMetrics`."""

    def enabled(self, queued: Callable[[], int], limit: int) -> None:
        """Called once the log is open. `queued` gives the number of waiting records, `limit` is their maximum."""

    def committed(self, records: int, size: int, seconds: float) -> None:
        """Called when records, `size` bytes together, were written to disk in `seconds`."""

    def dropped(self, cause: str, records: int = 1) -> None:
        """Called when records were lost, whether their requests were answered or refused."""

    def failed(self, cause: str) -> None:
        """Called when an operation on the disk failed."""

    def displaced(self, cause: str, records: int) -> None:
        """Called when others removed, moved, cut or changed a file that was being written, with `records` in it."""


@dataclass(slots=True)
class _Waiting:
    make: Make
    done: Future[int]


class DecisionLog:
    """Queue and thread in front of a `LogWriter`. `append` may be called from any thread.

    `on_full` says what happens where a record cannot be written: its request is refused, or the record is dropped.
    """

    def __init__(
        self,
        writer: LogWriter,
        on_full: Literal["refuse", "drop"],
        meter: LogMeter,
        *,
        waiting: int = 4096,
    ) -> None:
        self._writer, self._meter = writer, meter
        self._drop = on_full == "drop"
        self._limit = waiting
        self._queue: deque[_Waiting] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._failing = ""
        self._cause = "error"
        self._since = 0.0
        self._lost = 0
        self._tidied = time.monotonic()
        self._begun = writer.begun
        meter.enabled(lambda: len(self._queue), waiting)
        self._thread = threading.Thread(target=self._run, name="decisions", daemon=True)
        self._thread.start()

    def append(self, make: Make) -> Future[int]:
        """Queue a record. Returns at once; the future gives its sequence number once it is on disk.

        Where it cannot be written, the future raises Unavailable under `refuse` and gives 0 under `drop`. It cannot be
        cancelled.
        """
        waiting = _Waiting(make, Future())
        waiting.done.set_running_or_notify_cancel()
        with self._wake:
            full = len(self._queue) >= self._limit
            if not (full or self._closing):
                self._queue.append(waiting)
                self._wake.notify()
                return waiting.done
            self._lost += 1
        self._lose(waiting, "queue_full" if full else "stopping")
        return waiting.done

    def healthy(self) -> bool:
        """False while requests are refused because the log cannot be written."""
        return self._drop or not self._failing

    @property
    def id(self) -> str:
        """Name of the log, which the folder keeps. Sequence numbers mean something together with it only."""
        return self._writer.state.id

    @property
    def last(self) -> int:
        """Sequence number of the newest record on disk."""
        return self._writer.next - 1

    def close(self) -> None:
        """Write waiting records, then release the folder. Blocks."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._writer.close()

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            if self._failing:
                self._recover()
            if batch:
                self._commit(batch)
            self._tidy()

    def _take(self) -> list[_Waiting] | None:
        """Wait for records and take all that are queued.

        Returns an empty list where it is time to retry a failed disk or to delete old files, and None once the log is
        closed and the queue is empty.
        """
        with self._wake:
            if not self._queue and not self._closing:
                self._wake.wait(_PROBE if self._failing else _TIDY)
            batch = list(self._queue)
            self._queue.clear()
            return None if self._closing and not batch else batch

    def _commit(self, batch: list[_Waiting]) -> None:
        made = [(waiting, record) for waiting in batch if (record := self._made(waiting)) is not None]
        if not made:
            return
        if self._failing:
            self._lose_all([waiting for waiting, _ in made])
            return
        began = time.perf_counter()
        try:
            first, size = self._append([record for _, record in made])
        except Exception as error:  # noqa: BLE001  (no request may wait for ever)
            self._failed(error)
            self._lose_all([waiting for waiting, _ in made])
            return
        self._meter.committed(len(made), size, time.perf_counter() - began)
        for index, (waiting, _) in enumerate(made):
            waiting.done.set_result(first + index)

    def _append(self, records: list[bytes]) -> Appended:
        """Write records. Where others took the file away, write them to a new one, behind a line that says so."""
        try:
            return self._writer.append(records)
        except Displaced as gone:
            self._since = time.time()
            self._displaced(gone)
            written = self._writer.append([self._gap(str(gone.strerror)), *records])
        self._lost = 0
        return Appended(written.first + 1, written.size)

    def _displaced(self, gone: Displaced) -> None:
        self._lost += gone.records
        self._meter.displaced(gone.cause, gone.records)
        _log.error(
            "a file of the decision log is not where, or not as, it was left",
            reason=gone.strerror,
            records=gone.records,
        )

    def _gap(self, reason: str) -> bytes:
        """The line that says how many records before it are missing, since when and why."""
        content = {
            "kind": GAP,
            "time": time.time(),
            "since": self._since,
            "lost": self._lost,
            "reason": reason,
        }
        return lines.body(content)

    def _made(self, waiting: _Waiting) -> bytes | None:
        try:
            return lines.body(waiting.make())
        except Exception as error:  # noqa: BLE001  (one record that cannot be made must not end the log)
            _log.error("a decision record could not be made", error=type(error).__name__)
            self._lost += 1
            self._lose(waiting, "error")
            return None

    def _failed(self, error: Exception) -> None:
        full = isinstance(error, OSError) and error.errno in _FULL
        self._cause = "disk_full" if full else "error"
        self._meter.failed("disk_full" if full else "write")
        if isinstance(error, Displaced):
            self._displaced(error)
        reason = _reason(error)
        if not self._failing:
            self._since = time.time()
            does = "decisions are dropped" if self._drop else "requests are refused"
            _log.error(f"the decision log cannot be written; {does}", error=reason)
        self._failing = reason

    def _recover(self) -> None:
        """Try to write again after a failure, beginning with a line that says which records are missing."""
        try:
            self._writer.append([self._gap(self._failing)])
        except Exception as error:  # noqa: BLE001  (no request may wait for ever)
            self._failed(error)
            return
        _log.warning(
            "the decision log can be written again", lost=self._lost, seconds=time.time() - self._since
        )
        self._failing, self._lost = "", 0

    def _lose_all(self, batch: list[_Waiting]) -> None:
        self._lost += len(batch)
        for waiting in batch:
            self._lose(waiting, self._cause)

    def _lose(self, waiting: _Waiting, cause: str) -> None:
        self._meter.dropped(cause)
        if self._drop:
            waiting.done.set_result(0)
        else:
            waiting.done.set_exception(Unavailable(REFUSED))

    def _tidy(self) -> None:
        """Delete old files whenever a new one was begun, and once a minute."""
        if self._writer.begun == self._begun and time.monotonic() - self._tidied < _TIDY:
            return
        self._begun, self._tidied = self._writer.begun, time.monotonic()
        try:
            self._writer.tidy()
        except OSError as error:
            self._meter.failed("delete")
            _log.warning("old files of the decision log could not be deleted", error=error.strerror)


def _reason(error: Exception) -> str:
    if isinstance(error, ConfigurationError):
        return str(error)
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
