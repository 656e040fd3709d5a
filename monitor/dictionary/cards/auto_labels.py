"""Automatic labels: the words on which a feature is most active in its top contexts, and words that stand near them.

A label only lists words; it does not interpret them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from monitor.dictionary.cards.card_file import Context, FeatureCard

UNSEEN = "(never active)"
"""Label of a feature without contexts."""
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]+|\n")
_STRONG = 50
"""The feature counts as firing on a word from this percentage of the context's peak activation."""
_COMMON = 0.3
"""A word is part of the label from this share of the total weight of all words, over all contexts."""
_NEAR = 0.5
"""A word is listed after "near" where it occurs in at least this share of the contexts."""


def name_features(cards: Iterable[FeatureCard]) -> dict[int, str]:
    """A label for every card, by feature index."""
    held = list(cards)
    spread = Counter(word for card in held for word in {w for c in card.contexts for w in _words(c)})
    return {card.feature: name(card, spread, len(held)) for card in held}


def name(card: FeatureCard, spread: Counter[str], cards: int) -> str:
    """A label such as `power, control · near seek`, or `many words, such, as, these` where no word is frequent enough.

    The words after "near" are not fired on but occur in at least half of the contexts. `spread` gives for each word
    the number of cards that contain it; a word in a quarter or more of all `cards` cards is not listed after "near".
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
    """The words on which the feature fires in a context, with weights that sum to 1."""
    weight: Counter[str] = Counter()
    peak = max(context.levels, default=0)
    for word, level in _levels(context):
        if level and 100 * level >= _STRONG * peak:
            weight[word] += level
    total = sum(weight.values())
    return Counter({word: mass / total for word, mass in weight.items()}) if total else weight


def _levels(context: Context) -> list[tuple[str, int]]:
    """Each word of the context, with the highest level among its tokens."""
    text = "".join(context.tokens)
    level_at = [
        level for token, level in zip(context.tokens, context.levels, strict=True) for _ in range(len(token))
    ]
    return [
        (_shown(match.group()), max(level_at[match.start() : match.end()])) for match in _WORD.finditer(text)
    ]


def _near(contexts: Sequence[Context], on: set[str], spread: Counter[str], cards: int) -> list[str]:
    """Up to two words that are not in `on`, occur in at least half of the contexts, and occur in few cards."""
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
