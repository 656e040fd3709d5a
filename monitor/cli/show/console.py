"""The consoles that commands print to. They heed NO_COLOR, pipes, and streams that are not UTF-8."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rich.console import Console

PIPE_WIDTH = 100
"""Columns where nobody has a window."""


def _tolerant(stream: TextIO) -> TextIO:
    """The stream, set to replace characters that its encoding lacks."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return stream


def _console(stream: TextIO) -> Console:
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(file=_tolerant(stream), highlight=False, markup=False, emoji=False, width=width)


def stdout_console() -> Console:
    """A console on standard output as it is now (tests replace it)."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """A console on standard error as it is now."""
    return _console(sys.stderr)


def has_colour(console: Console) -> bool:
    """Whether background shading will be seen: a terminal with colours, and no NO_COLOR."""
    return console.is_terminal and not console.no_color and console.color_system is not None
