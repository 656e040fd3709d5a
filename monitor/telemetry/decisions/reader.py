"""Read and verify a decision log, while its server writes or after a crash. Only complete lines are returned."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.folder import LogState, Segment, has_writer, segments

_POLL = 0.2
"""Seconds between two checks for new records while a log is followed."""
_STRETCH = 1 << 16
"""Bytes that are read rather than bisected."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a file, complete or not."""

    start: int
    """Position of its first byte in the file."""
    end: int
    """Position after its newline."""
    content: dict[str, Any] | None
    """The record; None where the line is not complete."""
    fault: str = ""
    """What is wrong with the line; empty where it is complete."""
    finished: bool = True
    """False where the newline is missing: the line is being written now, or its writer has crashed."""


def scan(path: Path, start: int = 0) -> Iterator[LogLine]:
    """Every line of a file from byte `start` on, complete or not. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        file.seek(start)
        yield from _lines(file, sys.maxsize)


def _line(raw: bytes, start: int, end: int) -> LogLine:
    if not raw.endswith(b"\n"):
        return LogLine(start, end, None, "has no end", finished=False)
    try:
        return LogLine(start, end, lines.decode(raw[:-1]))
    except lines.TornLine as error:
        return LogLine(start, end, None, str(error))


def read(folder: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """Records with a sequence number above `after`, in order. Raises OSError where the folder cannot be read."""
    for found in _from(folder, after):
        try:
            for line in scan(found.path, _before(found.path, after)):
                if line.content is not None and line.content["seq"] > after:
                    yield line.content
        except FileNotFoundError:  # Retention deleted it meanwhile.
            continue


def follow(folder: Path, after: int, ended: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """Yield the records that `read` yields, then new ones as they are written, until `ended()` is true."""
    place: tuple[Segment, int] | None = None
    while True:
        for content, position in _news(folder, place, after):
            after, place = content["seq"], position
            yield content
        if ended():
            return
        time.sleep(_POLL)


def newest(folder: Path) -> int:
    """Sequence number of the last record, 0 where there is none. Raises OSError where the folder cannot be read."""
    for found in reversed(segments(folder)):
        start = _before(found.path, sys.maxsize)
        held = [line.content["seq"] for line in scan(found.path, start) if line.content is not None]
        if held:
            return int(held[-1])
    return 0


def _news(
    folder: Path, place: tuple[Segment, int] | None, after: int
) -> Iterator[tuple[dict[str, Any], tuple[Segment, int]]]:
    """Records after a position in a log, each with the position after it."""
    for found in _from(folder, after):
        try:
            start = place[1] if place is not None and place[0] == found else _before(found.path, after)
            for line in scan(found.path, start):
                if line.content is not None and line.content["seq"] > after:
                    yield line.content, (found, line.end)
        except FileNotFoundError:
            continue


def _before(path: Path, after: int) -> int:
    """A position in a file, at a line, before which no record has a number above `after`.

    Found by bisection, because a reader who comes back wants the end of a large file.
    """
    first, last = 0, path.stat().st_size
    with path.open("rb") as file:
        while last - first > _STRETCH:
            middle = (first + last) // 2
            file.seek(middle)
            file.readline(lines.LONGEST)
            line = next((one for one in _lines(file, last) if one.content is not None), None)
            if line is None or line.content is None or line.content["seq"] > after:
                last = middle
            else:
                first = line.start
    return first


def _lines(file: BinaryIO, last: int) -> Iterator[LogLine]:
    """The lines that begin from the file's present position on and before `last`."""
    while (start := file.tell()) < last and (raw := file.readline(lines.LONGEST)):
        yield _line(raw, start, file.tell())


def _from(folder: Path, after: int) -> list[Segment]:
    """The files that may contain records above a sequence number."""
    known = segments(folder)
    begun = [index for index, found in enumerate(known) if found.first <= after + 1]
    return known[begun[-1] :] if begun else known


@dataclass
class LogReport:
    """The result of `verify`."""

    files: int = 0
    records: int = 0
    first: int = 0
    """Sequence number of the oldest record; 0 where there is none."""
    last: int = 0
    """Sequence number of the newest record."""
    missing: int = 0
    """Number of records that were written and are not there: before the first, between two, or after the last."""
    deleted: int = 0
    """Number of records before the first that retention has deleted; they do not count as missing."""
    faults: list[str] = field(default_factory=list)
    """Everything that is wrong, as `FILE:BYTE: what`."""
    writing: bool = False
    """True where the last line is being written now by a process that holds the lock."""


def verify(folder: Path) -> LogReport:
    """Check every line of a log, and that no sequence number is missing.

    Raises OSError where the folder cannot be read.
    """
    report = LogReport()
    before = LogState.read(folder)
    for found in segments(folder):
        report.files += 1
        with suppress(FileNotFoundError):  # Retention deleted it meanwhile.
            _check(folder, found, report)
    _count_ends(folder, report, before)
    return report


def _check(folder: Path, found: Segment, report: LogReport) -> None:
    for line in scan(found.path):
        at = f"{found.path.name}:{line.start}"
        if line.content is not None:
            _count(report, line.content["seq"], at)
        elif not line.finished and has_writer(folder):
            report.writing = True
        else:
            report.faults.append(f"{at}: the line {line.fault}; it is not read")


def _count(report: LogReport, seq: int, at: str) -> None:
    if report.records and seq > report.last + 1:
        _miss(report, report.last + 1, seq - 1, f"{at}: record {seq} follows record {report.last}")
    elif report.records and seq <= report.last:
        report.faults.append(f"{at}: record {seq} follows record {report.last}; its number was given before")
    report.first = report.first or seq
    report.last = max(report.last, seq)
    report.records += 1


def _count_ends(folder: Path, report: LogReport, before: LogState | None) -> None:
    """Count what is missing before the first record and after the last, by what the folder says of its log."""
    after = LogState.read(folder)  # Retention may have deleted files while they were read.
    deleted = after.deleted if after is not None else 0
    report.deleted = min(deleted, report.first - 1) if report.records else deleted
    if report.first > report.deleted + 1:
        why = (
            "retention did not delete them" if after is not None else "nothing says whether they were deleted"
        )
        _miss(report, report.deleted + 1, report.first - 1, f"before the first record, and {why}")
    known = before.next - 1 if before is not None else 0
    if known > max(report.last, report.deleted):
        _miss(report, max(report.last, report.deleted) + 1, known, "at the end")


def _miss(report: LogReport, first: int, last: int, where: str) -> None:
    count = last - first + 1
    report.missing += count
    span = f"record {first} is" if count == 1 else f"{count} records, {first} to {last}, are"
    report.faults.append(f"{where}: {span} missing")
