"""Texts shaded token by token.

Knows scores and markup. Does not know where the texts come from. The strongest tokens are underlined too, so that the
picture does not rest on colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from monitor.policy.report.markup import element, safe
from monitor.policy.report.records import Group, Heat, Token

UNDERLINED = 0.5
"""Share of the strongest score from which a token is underlined."""
FAINT = 0.04


def group(one: Group, strongest: float) -> str:
    """A group of texts; shading is relative to `strongest`, one number for the whole policy."""
    if not one.texts:
        return ""
    items = "".join(_item(heat, strongest) for heat in one.texts)
    return element(
        "section",
        element("h4", safe(one.title)),
        element("p", safe(one.note), class_="note"),
        element("ul", items, class_="texts"),
    )


def strongest_of(groups: Iterable[Group]) -> float:
    """The strongest token score of all texts."""
    scores = [abs(t.score) for one in groups for heat in one.texts for t in heat.tokens]
    return max(scores, default=1.0) or 1.0


def _item(heat: Heat, strongest: float) -> str:
    fires = "fires" if heat.share >= 1 else "does not fire"
    head = element(
        "span",
        f"{max(heat.share, 0):.0%} of the threshold, {fires}",
        class_="far on" if heat.share >= 1 else "far",
    )
    words = element("span", _words(heat.tokens, strongest), class_="words")
    return element("li", element("p", words), element("p", head, " · ", safe(heat.source), class_="from"))


def _words(tokens: Sequence[Token], strongest: float) -> str:
    return "".join(_word(token, token.score / strongest) for token in tokens)


def _word(token: Token, share: float) -> str:
    text = safe(token.text)
    if abs(share) < FAINT:
        return text
    kind = "hot" if share > 0 else "cold"
    strong = " strong" if share >= UNDERLINED else ""
    return f'<span class="{kind}{strong}" style="--a:{min(abs(share), 1):.2f}" title="{token.score:.2f}">{text}</span>'
