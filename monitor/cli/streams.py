"""The standard streams of a command, made fit to use once, before anything is printed.

A stream may be closed, its reader may leave, its encoding may lack characters, its disk may be full, and variables may
say that a terminal has no columns. None of that may change what an exit code says.
"""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TextIO, cast

NARROWEST, WIDEST = 20, 1000
"""Columns that a table can be drawn in; a larger or smaller number is taken for one of these."""
_WIDTHS = ("COLUMNS", "TERMINAL_WIDTH")
_ESCAPE = "sae-monitor-escape"
_stops: ContextVar[bool] = ContextVar("stops", default=False)


class _Output(io.FileIO):
    """Standard output or error. Once its reader has left, what is written is dropped, as on /dev/null."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "wb", closefd=False)

    def write(self, data: object, /) -> int:
        """Write bytes; returns their number. Raises BrokenPipeError inside `stopping` alone."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except BrokenPipeError:
            if _stops.get():
                raise
            drop(self.fileno())
            return memoryview(data).nbytes  # type: ignore[arg-type]


@contextmanager
def stopping() -> Iterator[None]:
    """A block that prints until its reader leaves, and ends then without an error: `| head` wants no more.

    Outside of such blocks a command goes on without a reader, because its exit code has more to say.
    """
    token = _stops.set(True)
    try:
        yield
    except BrokenPipeError:
        drop(1)
    finally:
        _stops.reset(token)


def drop(number: int) -> None:
    """Drop whatever is written to a file descriptor from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, number)
    finally:
        os.close(nowhere)


def prepare() -> None:
    """Make the standard streams usable. Called once, before the command line."""
    codecs.register_error(_ESCAPE, _escaped)
    if sys.stdin is None:
        _reserve(0)
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stdout = _output(sys.stdout, 1)
    sys.stderr = _output(sys.stderr, 2)
    for name in _WIDTHS:
        width = columns(os.environ, name)
        if width is not None:
            os.environ[name] = str(width)
        else:
            os.environ.pop(name, None)


def finish() -> str:
    """Write what is still buffered. Returns why that failed; empty where it did not."""
    failed = ""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            failed = failed or str(error)
            drop(stream.fileno())  # or Python tries once more, and says so
            with suppress(OSError, ValueError):
                stream.flush()
    return failed


def columns(environment: Mapping[str, str], name: str = "COLUMNS") -> int | None:
    """The number of columns that a variable names, kept within what can be drawn; None where it names none."""
    text = environment.get(name, "")
    if not (text.isascii() and text.isdecimal()) or not text.strip("0"):
        return None
    return max(NARROWEST, min(int(text[:9]), WIDEST))


def _output(stream: TextIO | None, number: int) -> TextIO:
    """The stream again, over a descriptor whose reader may leave; one that drops everything where it is closed."""
    if stream is None:
        _reserve(number)
        return open(os.devnull, "w", encoding="utf-8", errors=_ESCAPE)
    with suppress(OSError, ValueError):
        stream.flush()
    through = isinstance(stream, io.TextIOWrapper) and stream.write_through
    return io.TextIOWrapper(
        cast("io.BufferedWriter", io.BufferedWriter(_Output(number))),
        encoding=stream.encoding,
        errors=_ESCAPE,
        line_buffering=number == 2 or stream.isatty(),
        write_through=through,
    )


def _reserve(number: int) -> None:
    """Open a closed descriptor, so that no file that is opened later gets it and is printed into."""
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    r"""What to print for characters that an encoding lacks: `\u6f22`, which is right inside JSON too."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)), error.end


def attribute_libraries() -> None:
    """Put the library's name before what a library logs or warns of, so that nobody takes it for a line of ours."""
    # Not at the top: a server arms its signals behind this module, and should do so at once.
    import logging
    import warnings

    make = logging.getLogRecordFactory()

    def marked(name: str, level: int, path: str, line: int, text: object, *rest: Any, **more: Any) -> Any:
        return make(name, level, path, line, f"[library {name}] {text}", *rest, **more)

    logging.setLogRecordFactory(marked)
    warnings.showwarning = _warned


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    parts = filename.replace(os.sep, "/").rpartition("-packages/")[2].split("/")
    name = parts[0] if "-packages/" in filename.replace(os.sep, "/") else os.path.basename(filename)
    print(f"[library {name}] {category.__name__}: {message}", file=file or sys.stderr)
