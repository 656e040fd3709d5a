"""Windows, places and cards from plain text: `[` and `]` stand around the token that is meant."""

from __future__ import annotations

import re

from monitor.dictionary.cards.card_file import Context, FeatureCard
from monitor.dictionary.labeller.places import Window


def tokens_of(text):
    """Tokens with the space before them; a `|` within a word splits it, the marked token loses its brackets."""
    parts = re.findall(r"\[[^\]]*\]|\n+|[^\S\n]*[^\s|\[\]]+|[^\S\n]+$|\|", text)
    found, at = [], None
    for part in parts:
        if part == "|":
            continue
        if part.startswith("["):
            at = len(found)
            part = part[1:-1]
        found.append(part)
    return tuple(found), at


def place(text, **options):
    tokens, at = tokens_of(text)
    return Window(tokens, **options).place(at)


def context(text, peak=5.0, level=100):
    tokens, at = tokens_of(text)
    return Context(peak, at, tokens, tuple(level if n == at else 0 for n in range(len(tokens))))


def card(feature, *contexts, promoted=(), neighbours=()):
    return FeatureCard(feature, tuple(contexts), tuple(promoted), (), tuple(neighbours))
