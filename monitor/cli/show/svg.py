"""Save what a command prints as an SVG picture."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

from monitor.errors import InputError

WIDTH = 100

THEME = TerminalTheme(
    (250, 250, 248),
    (36, 41, 47),
    [
        (36, 41, 47),
        (179, 19, 43),
        (31, 122, 61),
        (154, 103, 0),
        (9, 105, 218),
        (130, 80, 223),
        (27, 124, 131),
        (110, 119, 129),
    ],
    [
        (87, 96, 106),
        (164, 14, 38),
        (26, 127, 55),
        (191, 135, 0),
        (33, 139, 255),
        (164, 117, 249),
        (49, 146, 170),
        (140, 149, 159),
    ],
)
"""Dark letters on a light ground: readable in a document whether its page is light or dark."""


def recorder() -> Console:
    """A console that shows nothing and keeps everything, in full colour whatever the terminal is."""
    return Console(
        record=True,
        width=WIDTH,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


def save_svg(form: RenderableType, path: Path, title: str) -> None:
    """Save something printable as an SVG file. Raises InputError where the file cannot be written."""
    console = recorder()
    console.print(form)
    save_recorded(console, path, title)


def save_recorded(console: Console, path: Path, title: str) -> None:
    """Save everything that was printed to a recorder. Raises InputError where the file cannot be written."""
    drawn = console.export_svg(title=title, theme=THEME, clear=False)
    try:
        path.write_text(_self_contained(drawn), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _self_contained(drawn: str) -> str:
    """Without fonts from elsewhere, which a document must not fetch, and with the spaces that words begin with,
    which some viewers swallow."""
    without_fonts = re.sub(r"@font-face\s*\{.*?\}\s*", "", drawn, flags=re.DOTALL)
    return without_fonts.replace("<text ", '<text xml:space="preserve" ')
