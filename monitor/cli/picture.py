"""The readable form as an SVG file, for documents.

Knows rich's export. Does not know what is pictured.
"""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console, RenderableType
from rich.terminal_theme import TerminalTheme

from monitor.cli.errors import InputError

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


def svg(form: RenderableType, title: str, width: int = WIDTH) -> str:
    """The picture of a readable form."""
    console = Console(
        record=True,
        width=width,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    console.print(form)
    return console.export_svg(title=title, theme=THEME).replace("<text ", '<text xml:space="preserve" ')


def save_svg(form: RenderableType, path: Path, title: str) -> None:
    """Write the picture; `InputError` where the file cannot be written."""
    try:
        path.write_text(svg(form, title), encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
