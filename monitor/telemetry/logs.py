"""Log lines: their format, and what becomes of those of libraries. The process that serves configures them.

No module of this project logs prompts or outputs. Libraries do not promise that: transformers quotes token ids where it
turns a request away, asyncio the arguments of a callback that failed, and any exception may quote what it could not
handle. Once callers may come, a library's line is therefore kept only as far as it stands in the library's code.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
import types
import warnings
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog


class LossyStream:
    """A stream that drops what it cannot write, so that a full disk or a closed pipe raises nothing in the caller."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text and return its length. Errors of the stream are ignored."""
        with suppress(OSError, ValueError):  # ValueError: closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream. Its errors are ignored."""
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure(level: str, form: str) -> None:
    """Write events of at least `level` to standard error, as lines for people (`console`) or as JSON (`json`)."""
    # structlog prints tracebacks with local variables by default. These may be prompts, so plain tracebacks are used.
    renderers: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(),
    ]
    if form == "console":
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", LossyStream(sys.stderr))),
    )


def lines_lost(stream: str, lines: int) -> None:
    """Log how many lines a standard stream has lost, once it takes lines again. It is said at every log level."""
    _log.error("lines of output were lost, because nobody read them", stream=stream, lines=lines)


_GIVEN_TEXTS = frozenset({"grpc", "tokenizers", "torch", "transformers"})
"""Libraries that handle callers' texts. In a process that belongs to somebody else, such as a notebook, only their
lines are guarded."""
WITHHELD = "(text withheld, because it may quote a caller)"
_STEPS = 12
"""Frames of the stack among which the one that wrote a line is looked for."""
_PLACES = 8
"""Places of a traceback that are logged."""

_log = structlog.get_logger(__name__)


class _Guard:
    """Makes the records of the standard library's logging, without what a caller may have sent."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self.everything = False
        """Whether records of all libraries are guarded, not only of those that handle texts."""
        self.active = False
        """Whether callers may come."""

    def __call__(
        self,
        name: str,
        level: int,
        path: str,
        line: int,
        text: Any,
        args: Any,
        failure: Any,
        function: str | None = None,
        stack: str | None = None,
        **more: Any,
    ) -> logging.LogRecord:
        if self.active and (self.everything or _given_texts(name, path)):
            text, args = f"{_constant(text)} [{name}:{line}]{_raised(failure)}", ()
            failure = stack = None
        record: logging.LogRecord = self._make(
            name, level, path, line, text, args, failure, function, stack, **more
        )
        return record


def _given_texts(name: str, path: str) -> bool:
    """Whether a library that handles texts writes a record. Some of their loggers are not named after them."""
    return name.partition(".")[0] in _GIVEN_TEXTS or not _GIVEN_TEXTS.isdisjoint(path.split(os.sep))


def _constant(text: object) -> str:
    """A line's text where it stands in somebody's code as it is, without the values for its placeholders."""
    frame: types.FrameType | None = sys._getframe(2)
    for _ in range(_STEPS):
        if frame is None or not isinstance(text, str):
            break
        if text in frame.f_code.co_consts:
            return text
        frame = frame.f_back
    return WITHHELD


def _raised(failure: Any) -> str:
    """The type of an exception and where it was raised, never its text."""
    if not isinstance(failure, tuple) or failure[0] is None:
        return ""
    return f"; {failure[0].__name__} at {', '.join(places(failure[2]))}"


def places(raised: types.TracebackType | None) -> list[str]:
    """The last places in the code that an exception went through, as `file:line function`."""
    return [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(raised)[-_PLACES:]]


def _guard() -> _Guard:
    """The guard of this process, which is installed at the first call."""
    found = logging.getLogRecordFactory()
    if not isinstance(found, _Guard):
        found = _Guard(found)
        logging.setLogRecordFactory(found)
    return found


def guard_libraries() -> None:
    """Withhold from now on what lines of libraries may quote of callers' texts. Called before callers may come."""
    guard = _guard()
    guard.active = True
    if guard.everything:
        _adopt_handlers()  # a library that was imported meanwhile may have added its own


def adopt_libraries() -> None:
    """Make lines, warnings and uncaught exceptions of libraries lines of this log, in a process that only serves.

    They are kept as they are until `guard_libraries` is called, because no caller has sent anything yet.
    """
    _guard().everything = True
    _adopt_handlers()
    warnings.showwarning = _log_warning
    threading.excepthook = _thread_died
    sys.unraisablehook = _not_raised


def _adopt_handlers() -> None:
    """Have every logger pass its records to this log, and to nothing else."""
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    logging.getLogger().handlers[:] = [_LibraryLines()]


class _LibraryLines(logging.Handler):
    """Writes the records of libraries as lines of this log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # placeholders and values that do not fit each other
            text = WITHHELD
        known = (logging.ERROR, logging.WARNING, logging.INFO)
        level = next((level for level in known if record.levelno >= level), logging.DEBUG)
        _log.log(level, text, library=record.name, **_error(record.exc_info))


def _error(failure: Any) -> dict[str, Any]:
    if not isinstance(failure, tuple) or failure[0] is None:
        return {}
    return {"error": failure[0].__name__, "at": places(failure[2])}


def _log_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = WITHHELD if _guard().active else str(message)
    _log.warning(text, library=category.__name__, at=f"{filename}:{lineno}")


def _thread_died(died: threading.ExceptHookArgs) -> None:
    name = died.thread.name if died.thread is not None else ""
    _log.error("a thread died", thread=name, error=died.exc_type.__name__, at=places(died.exc_traceback))


def _not_raised(failed: sys.UnraisableHookArgs) -> None:
    _log.error(
        "an exception could not be raised", error=failed.exc_type.__name__, at=places(failed.exc_traceback)
    )
