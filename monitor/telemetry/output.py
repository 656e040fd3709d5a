"""Standard output and standard error of a process that serves: whatever is written to them never blocks anybody.

A pipe takes 64 KiB from a process whose reader stands still. After that every further write blocks, in whichever
thread it happens: that of the event loop, of the engine, of a library. Here writes are put into a bounded queue, which
a thread empties. What does not fit is dropped and counted, and a line says how much was lost once somebody reads again.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import stat
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO, cast

_MOST_BYTES = 1 << 20
"""Bytes that wait for a reader, some 5,000 lines; more are dropped."""
_LONGEST_LINE = 1 << 16
"""Characters of a line that are kept until its end comes."""
_LOOK_AGAIN = 1000
"""Milliseconds after which a descriptor that took nothing is tried again, whatever the kernel says of it."""
_LAST_BYTES = 1.0
"""Longest time, in seconds, in which the rest is written when the process ends."""


class Outlet:
    """Writes to one file descriptor from a thread of its own. Any thread may call it, and none ever waits.

    `noted` is called on that thread with the number of lines that were lost, once others could be written again.
    """

    def __init__(self, descriptor: int, noted: Callable[[int], None], most: int) -> None:
        """At most `most` bytes wait."""
        self._descriptor, self._noted, self._most = descriptor, noted, most
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        """Bytes that wait or are being written."""
        self._lost = self._told = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"output-{descriptor}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Number of lines that were dropped since the start."""
        return self._lost

    def write(self, data: bytes) -> None:
        """Queue bytes, or drop them where the queue is full."""
        with self._changed:
            if self._closed or self._bytes + len(data) > self._most:
                self._lost += _lines(data)
                return
            self._waiting.append(data)
            self._bytes += len(data)
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, for `seconds` at most; True where it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, seconds)

    def close(self, seconds: float) -> None:
        """Write what waits, for `seconds` at most, and take nothing more."""
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (data := self._next()) is not None:
            written = self._put(data)
            with self._changed:
                self._bytes -= len(data)
                self._lost += 0 if written else _lines(data)
                untold = self._lost - self._told if written else 0
                self._told += untold
                self._changed.notify_all()
            if untold:
                self._noted(untold)

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return self._waiting.popleft() if self._waiting else None

    def _put(self, data: bytes) -> bool:
        """Write all of it, however long that takes; False where the descriptor takes nothing any more."""
        rest = memoryview(data)
        ready = select.poll()
        ready.register(self._descriptor, select.POLLOUT)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                ready.poll(_LOOK_AGAIN)
            except OSError:  # Nobody reads any more, or the disk is full.
                return False
        return True


def _lines(data: bytes) -> int:
    return max(1, data.count(b"\n"))


class QueuedStream(io.TextIOBase):
    """A text stream in front of an outlet, in place of `sys.stdout` or `sys.stderr`. It queues whole lines."""

    def __init__(self, stream: TextIO, outlet: Outlet) -> None:
        self._encoding = stream.encoding or "utf-8"
        self._isatty, self._descriptor, self._outlet = stream.isatty(), stream.fileno(), outlet
        self._begun, self._lock = "", threading.Lock()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream whose place this takes."""
        return self._encoding

    def write(self, text: str) -> int:
        """Queue the lines that are complete; the beginning of another is kept until the rest comes."""
        with self._lock:
            whole = max(text.rfind("\n"), text.rfind("\r")) + 1
            if whole:
                self._send(self._begun + text[:whole])
            self._begun += text[whole:]
            if len(self._begun) > _LONGEST_LINE:
                self._send("")
        return len(text)

    def flush(self) -> None:
        """Queue the beginning of a line as well. It does not wait until anything is written."""
        with self._lock:
            self._send("")

    def _send(self, lines: str) -> None:
        lines, self._begun = lines or self._begun, ""
        if lines:
            self._outlet.write(lines.encode(self._encoding, "backslashreplace"))

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._isatty

    def fileno(self) -> int:
        """The descriptor behind the outlet, which takes writes past the queue without blocking."""
        return self._descriptor

    def writable(self) -> bool:
        """Always true."""
        return True


class Output:
    """Both standard streams of this process, once they are queued."""

    def __init__(self, noted: Callable[[str, int], None]) -> None:
        self._restored: list[Callable[[], None]] = []
        self._outlets: list[Outlet] = []
        self._streams: list[QueuedStream] = []
        sys.stdout = self._queued(sys.stdout, lambda lines: noted("stdout", lines))
        sys.stderr = self._queued(sys.stderr, lambda lines: noted("stderr", lines))

    def _queued(self, stream: TextIO, noted: Callable[[int], None]) -> TextIO:
        """The stream with a queue in front of it; as it is where it has no descriptor."""
        try:
            stream.flush()
            descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):  # None where it is closed; one of a test or a notebook
            return stream
        self._restored.append(_never_blocking(descriptor))
        self._outlets.append(outlet := Outlet(descriptor, noted, _MOST_BYTES))
        self._streams.append(queued := QueuedStream(stream, outlet))
        return cast("TextIO", queued)

    @property
    def lost(self) -> int:
        """Number of lines of both streams that were dropped since the start."""
        return sum(outlet.lost for outlet in self._outlets)

    def close(self, seconds: float = _LAST_BYTES) -> None:
        """Write what waits, for `seconds` at most for each stream. What is written afterwards is dropped."""
        for stream in self._streams:
            stream.flush()
        for outlet in self._outlets:
            outlet.close(seconds)
        while self._restored:
            self._restored.pop()()


def _never_blocking(descriptor: int) -> Callable[[], None]:
    """Make every write to a descriptor return at once, those of C libraries too; returns what undoes it.

    The flag belongs to the open file, which this process may share with others, such as its shell. So a pipe or a
    terminal is opened anew where that is allowed; a pipe or a socket that cannot be opened gets the flag itself.
    """
    mode = os.fstat(descriptor).st_mode
    pipe = stat.S_ISFIFO(mode)
    if not (pipe or stat.S_ISSOCK(mode) or os.isatty(descriptor)):
        return lambda: None
    with suppress(OSError):
        again = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        os.dup2(again, descriptor)
        os.close(again)
        return lambda: None
    if not (pipe or stat.S_ISSOCK(mode)) or not os.get_blocking(descriptor):
        return lambda: None
    os.set_blocking(descriptor, False)
    return lambda: os.set_blocking(descriptor, True)


_taken: list[Output] = []
"""The output of this process, once it was taken over."""


def take_over_output(noted: Callable[[str, int], None]) -> Output:
    """Queue what this process writes to its standard streams from now on, for as long as it runs.

    `noted` is called with the name of a stream and the number of lines that it lost, once lines flow again.
    """
    if not _taken:
        _taken.append(Output(noted))
        atexit.register(_taken[0].close)
    return _taken[0]


def lost_lines() -> int:
    """Number of lines that this process could not write; 0 where its output was not taken over."""
    return sum(output.lost for output in _taken)


def close_output(seconds: float) -> None:
    """Write what waits for the standard streams, for `seconds` at most for each, where they were taken over."""
    for output in _taken:
        output.close(seconds)
