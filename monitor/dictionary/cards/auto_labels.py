"""Plain automatic labels: the words that a feature fires on, and the words near them.

Knows how to summarise top contexts in a few words, and nothing of what they mean: a label says what was seen
where the feature fired most, no more. Does not know files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from monitor.dictionary.cards.card_file import Context, FeatureCard

UNSEEN = "(never active)"
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\n")
_STRONG = 50
"""Percent of a context's own peak above which a token counts as one that the feature fires on."""
_COMMON = 0.3
"""Share of the feature's weight that a word needs to be named."""
_NEAR = 0.5
"""Share of the feature's contexts in which a word must stand to be named as near."""


def name_features(cards: Iterable[FeatureCard]) -> dict[int, str]:
    """A label for every card, by feature."""
    held = list(cards)
    spread = Counter(word for card in held for word in {w for c in card.contexts for w in _words(c)})
    return {card.feature: name(card, spread, len(held)) for card in held}


def name(card: FeatureCard, spread: Counter[str], cards: int) -> str:
    """A label such as `power, control · near seek`, or `many words, such, as, these` where none stands out.

    `spread` counts in how many of `cards` cards each word stands anywhere; words that stand everywhere are not
    worth naming as near.
    """
    if not card.contexts:
        return UNSEEN
    weight: Counter[str] = Counter()
    for context in card.contexts:
        weight.update(_fired(context))
    total = sum(weight.values())
    on = [word for word, mass in weight.most_common(3) if mass >= _COMMON * total]
    near = _near(card.contexts, set(on), spread, cards)
    named = on or ["many words", *(word for word, _ in weight.most_common(3))]
    return ", ".join(named) + (f" · near {', '.join(near)}" if near else "")


def _fired(context: Context) -> Counter[str]:
    """Weight of each word that the feature fires on; each context weighs 1."""
    weight: Counter[str] = Counter()
    peak = max(context.levels, default=0)
    for word, level in _levels(context):
        if level and 100 * level >= _STRONG * peak:
            weight[word] += level
    total = sum(weight.values())
    return Counter({word: mass / total for word, mass in weight.items()}) if total else weight


def _levels(context: Context) -> list[tuple[str, int]]:
    """Each word of the context with the highest level among the tokens it is made of."""
    text = "".join(context.tokens)
    level_at = [
        level for token, level in zip(context.tokens, context.levels, strict=True) for _ in range(len(token))
    ]
    return [
        (_shown(match.group()), max(level_at[match.start() : match.end()])) for match in _WORD.finditer(text)
    ]


def _near(contexts: Sequence[Context], on: set[str], spread: Counter[str], cards: int) -> list[str]:
    """Up to two words that stand in most contexts, fired on or not, and in few other cards."""
    if len(contexts) < 3:
        return []
    inside = Counter(word for context in contexts for word in _words(context))
    score = {
        word: count / len(contexts) * math.log(cards / spread[word])
        for word, count in inside.items()
        if count >= _NEAR * len(contexts)
        and word not in on
        and word[0].isalpha()
        and spread[word] < cards / 4
    }
    return sorted(score, key=lambda word: (-score[word], word))[:2]


def _words(context: Context) -> set[str]:
    return {_shown(match.group()) for match in _WORD.finditer("".join(context.tokens))}


def _shown(text: str) -> str:
    stripped = text.strip(" ")
    return "↵" if stripped == "\n" else stripped.lower() or "space"
