"""Reading a log, beside its writer or after a crash: only lines that were written whole are ever given out.

Knows files and lines. Does not know what a record says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monitor.telemetry.decisions import lines
from monitor.telemetry.decisions.folder import Segment, has_writer, segments

_POLL = 0.2
"""Seconds between two looks at the end of a log that is followed."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line as it lies in a file."""

    start: int
    end: int
    """Bytes from the beginning of the file; `end` is behind the newline."""
    content: dict[str, Any] | None
    """None where it was not written whole."""
    fault: str = ""
    """What is wrong with it."""
    finished: bool = True
    """False where no newline ends it: somebody is writing it, or died doing so."""


def scan(path: Path, start: int = 0) -> Iterator[LogLine]:
    """Every line of a file from a byte on, good and bad. OSError where it cannot be read."""
    with path.open("rb") as file:
        file.seek(start)
        while raw := file.readline(lines.LONGEST):
            end = start + len(raw)
            yield _line(raw, start, end)
            start = end


def _line(raw: bytes, start: int, end: int) -> LogLine:
    if not raw.endswith(b"\n"):
        return LogLine(start, end, None, "has no end", finished=False)
    try:
        return LogLine(start, end, lines.decode(raw[:-1]))
    except lines.TornLine as error:
        return LogLine(start, end, None, str(error))


def read(folder: Path, after: int = 0) -> Iterator[dict[str, Any]]:
    """Records with a sequence number above `after`, in order. OSError where the folder cannot be read."""
    for found in _from(folder, after):
        try:
            for line in scan(found.path):
                if line.content is not None and line.content["seq"] > after:
                    yield line.content
        except FileNotFoundError:  # Retention was quicker than the reader.
            continue


def follow(folder: Path, after: int, ended: Callable[[], bool] = lambda: False) -> Iterator[dict[str, Any]]:
    """As `read`, and then whatever is added, until `ended`. Survives rotation and retention."""
    place: tuple[Segment, int] | None = None
    while True:
        for content, behind in _news(folder, place, after):
            after, place = content["seq"], behind
            yield content
        if ended():
            return
        time.sleep(_POLL)


def newest(folder: Path) -> int:
    """Sequence number of the last record; 0 where there is none. OSError where the folder cannot be read."""
    for found in reversed(segments(folder)):
        held = [line.content["seq"] for line in scan(found.path) if line.content is not None]
        if held:
            return int(held[-1])
    return 0


def _news(
    folder: Path, place: tuple[Segment, int] | None, after: int
) -> Iterator[tuple[dict[str, Any], tuple[Segment, int]]]:
    """Records behind a place in a log, each with the place behind it."""
    for found in _from(folder, after):
        start = place[1] if place is not None and place[0] == found else 0
        try:
            for line in scan(found.path, start):
                if line.content is not None and line.content["seq"] > after:
                    yield line.content, (found, line.end)
        except FileNotFoundError:
            continue


def _from(folder: Path, after: int) -> list[Segment]:
    """The files that can hold records above a sequence number."""
    known = segments(folder)
    begun = [index for index, found in enumerate(known) if found.first <= after + 1]
    return known[begun[-1] :] if begun else known


@dataclass
class LogReport:
    """What `verify` found."""

    files: int = 0
    records: int = 0
    first: int = 0
    """Sequence number of the oldest record; 0 where there is none."""
    last: int = 0
    faults: list[str] = field(default_factory=list)
    """`FILE:BYTE: what is wrong`."""
    writing: bool = False
    """The last line is being written now, by a process that holds the lock."""


def verify(folder: Path) -> LogReport:
    """Check every line of a log, and that no number is missing. OSError where the folder cannot be read."""
    report = LogReport()
    for found in segments(folder):
        report.files += 1
        for line in scan(found.path):
            at = f"{found.path.name}:{line.start}"
            if line.content is not None:
                _count(report, line.content["seq"], at)
            elif not line.finished and has_writer(folder):
                report.writing = True
            else:
                report.faults.append(f"{at}: the line {line.fault}; it is not read")
    return report


def _count(report: LogReport, seq: int, at: str) -> None:
    if report.records and seq != report.last + 1:
        report.faults.append(
            f"{at}: record {seq} follows record {report.last}; what was between them is missing"
        )
    report.first = report.first or seq
    report.last = seq
    report.records += 1
