"""HTML from text that is never trusted: escaping, elements and tables."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence

_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def safe(text: object) -> str:
    """Text that can stand anywhere in the page: markup escaped, control and direction characters made visible."""
    return html.escape("".join(map(_visible, str(text))), quote=True)


def element(name: str, *content: str, **attributes: str) -> str:
    """An element around `content`, which is markup. Attribute values are escaped; `class_` becomes `class`."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{safe(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{given}>{''.join(content)}</{name}>"


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, wide: bool = False) -> str:
    """A table whose cells are markup; the first cell of a row is its header. Empty where there are no rows."""
    body = "".join(
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:]))
        for row in rows
    )
    if not body:
        return ""
    head = element("tr", *(element("th", safe(name), scope="col") for name in heads))
    made = element("table", element("caption", safe(caption)), element("thead", head), element("tbody", body))
    return element(
        "div",
        made,
        class_="scroll wide" if wide else "scroll",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def _visible(character: str) -> str:
    acts = unicodedata.category(character) in ("Cc", "Cs", "Co", "Cn") or character in _DIRECTION
    if not acts or character in "\n\t":
        return character
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
