"""Configuration of log lines (structlog). It is called once by the process that serves, never at import.

No module of this project logs prompts or outputs.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import TextIO, cast

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
