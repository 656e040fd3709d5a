"""The consoles that commands print to. They heed NO_COLOR, pipes, and streams that are not UTF-8."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rich.console import Console

from monitor.cli.streams import NARROWEST, columns

PIPE_WIDTH = 100
"""Columns where nobody has a window."""


def _tolerant(stream: TextIO) -> TextIO:
    """The stream, set to replace characters that its encoding lacks."""
    if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
        stream.reconfigure(errors="replace")
    return stream


class _Console(Console):
    """A console that leaves it to `monitor.cli.streams` what a reader who left means for the exit code."""

    def on_broken_pipe(self) -> None:
        """Raise the error on. The base class would exit with 1, the code of a match."""
        raise


def _console(stream: TextIO) -> Console:
    width = columns(os.environ) or (None if stream.isatty() else PIPE_WIDTH)
    console = _Console(file=_tolerant(stream), highlight=False, markup=False, emoji=False, width=width)
    console.width = max(console.width, NARROWEST)
    return console


def stdout_console() -> Console:
    """A console on standard output as it is now (tests replace it)."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """A console on standard error as it is now."""
    return _console(sys.stderr)


def has_colour(console: Console) -> bool:
    """Whether background shading will be seen: a terminal with colours, and no NO_COLOR."""
    return console.is_terminal and not console.no_color and console.color_system is not None
