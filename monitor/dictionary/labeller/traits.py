"""Traits of places: what can be said of a token's word and of what stands around it.

A trait is a kind and a value. Labels are made of traits, and a place either has a trait or not.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from monitor.dictionary.labeller.lexicon import lexicon
from monitor.dictionary.labeller.places import TokenPlace, Window
from monitor.dictionary.labeller.word_classes import FUNCTION_WORDS, classes_of, ending_of


class TraitKind(StrEnum):
    """What a trait says."""

    WORD = "word"
    """The word, in lower case."""
    NAME = "name"
    """The word as it is written, where it has a capital; two words where the one before has a capital as well."""
    BASE = "base"
    """The base form of the word, where the word is another form of it or may be."""
    FIRST = "first"
    """The token is the first piece of a longer word; the value is the piece."""
    INNER = "inner"
    """The token is a piece inside of a word."""
    LAST = "last"
    """The token is the last piece of a longer word."""
    CATEGORY = "category"
    """A category of the lexicon."""
    CLASS = "class"
    """A class of words, or a shape."""
    ENDING = "ending"
    """A listed ending of the word."""
    PART = "part"
    """Which part of a word of several tokens the token is, whatever its text."""
    POSITION = "position"
    """Where the word stands: at the start of a text, a line, a sentence, a turn."""
    AFTER = "after"
    """The word before."""
    SECOND = "second"
    """The word before that."""
    BEFORE = "before"
    """The word after."""
    NEAR = "near"
    """A word elsewhere in the window that says what the text is about, in its base form."""
    TEXT = "text"
    """What kind of text it is: code, or whose turn."""


MAIN = (
    TraitKind.WORD,
    TraitKind.BASE,
    TraitKind.FIRST,
    TraitKind.INNER,
    TraitKind.LAST,
    TraitKind.CATEGORY,
    TraitKind.CLASS,
    TraitKind.ENDING,
    TraitKind.PART,
    TraitKind.POSITION,
)
"""Kinds that say what the feature fires on; names go with words."""
AROUND = (TraitKind.AFTER, TraitKind.SECOND, TraitKind.BEFORE, TraitKind.NEAR, TraitKind.TEXT)
"""Kinds that say where."""

FIRST_PIECES = "first pieces of long words"
INNER_PIECES = "pieces inside of long words"
LAST_PIECES = "last pieces of long words"
NAME_PIECES = "first pieces of names"
CAPITALISED = "capitalised words"
OPENS_TEXT = "first words of texts"
OPENS_LINE = "first words of lines"
OPENS_SENTENCE = "first words of sentences"
TURNS = {
    "user": "first words of a user's turn",
    "assistant": "first words of an assistant's answer",
    "system": "first words of a system prompt",
}
PARTS = (FIRST_PIECES, INNER_PIECES, LAST_PIECES, NAME_PIECES, CAPITALISED)
POSITIONS = (OPENS_TEXT, OPENS_LINE, OPENS_SENTENCE, *TURNS.values())
CODE = "in code"
ROLES = {
    "user": "in a user's turn",
    "assistant": "in an assistant's answer",
    "system": "in a system prompt",
}
TEXTS = (CODE, *ROLES.values())


class Trait(NamedTuple):
    """One thing that is true of a place."""

    kind: TraitKind
    value: str


def traits_of(place: TokenPlace) -> set[Trait]:
    """All traits of a place but those of the kinds `near` and `text`, which `topics_of` and `texts_of` give."""
    word = place.word
    found = set(_traits_of_word(word))
    if not (place.begins and place.ends) and word[0].isalnum():
        found.update(_pieces(place, word))
    if word[0].isupper():
        found.update(_names(place, word))
    found.update(_positions(place))
    before, second, after = place.neighbour(-1), place.neighbour(-2), place.neighbour(1)
    if before:
        found.add(Trait(TraitKind.AFTER, before.lower().replace("’", "'")))
    if second:
        found.add(Trait(TraitKind.SECOND, second.lower()))
    if after:
        found.add(Trait(TraitKind.BEFORE, after.lower()))
    return found


@lru_cache(maxsize=200_000)
def _traits_of_word(word: str) -> tuple[Trait, ...]:
    lowered = word.lower().replace("’", "'")
    found = [Trait(TraitKind.WORD, lowered)]
    found += [Trait(TraitKind.CLASS, name) for name in classes_of(word)]
    if word.isalpha():
        found.append(Trait(TraitKind.BASE, lexicon().base(lowered)))
        if (ending := ending_of(word)) is not None:
            found.append(Trait(TraitKind.ENDING, ending))
        # A name that is spelt like a noun is no case of the noun: May Bell is neither a month nor an instrument.
        found += [Trait(TraitKind.CATEGORY, name) for name in lexicon().categories(lowered)]
    return tuple(found)


def _pieces(place: TokenPlace, word: str) -> list[Trait]:
    piece = place.piece.lower()
    if place.begins:
        part = [Trait(TraitKind.PART, FIRST_PIECES)]
        if word[0].isupper():
            part.append(Trait(TraitKind.PART, NAME_PIECES))
        return [Trait(TraitKind.FIRST, piece), *part]
    if place.ends:
        return [Trait(TraitKind.LAST, piece), Trait(TraitKind.PART, LAST_PIECES)]
    return [Trait(TraitKind.INNER, piece), Trait(TraitKind.PART, INNER_PIECES)]


def _names(place: TokenPlace, word: str) -> list[Trait]:
    """The word as a name; with the one before or after it where that makes a longer name."""
    found = [Trait(TraitKind.NAME, word)]
    if not _opens_sentence(place) and len(word) > 1 and not word.isupper():
        found.append(Trait(TraitKind.PART, CAPITALISED))
    before, after = place.neighbour(-1), place.neighbour(1)
    known = lexicon().names
    for first, second in ((before, word), (word, after)):
        if f"{first}_{second}".lower() in known and first[:1].isupper() and second[:1].isupper():
            found.append(Trait(TraitKind.NAME, f"{first} {second}"))
            found += [
                Trait(TraitKind.CATEGORY, name) for name in lexicon().categories(f"{first}_{second}".lower())
            ]
    if before[:1].isupper() and before.isalpha() and before.lower() not in FUNCTION_WORDS and before != word:
        found.append(Trait(TraitKind.NAME, f"{before} {word}"))
    return found


def _opens_sentence(place: TokenPlace) -> bool:
    before = place.neighbour(-1)
    return place.opens_text or before[-1:] in (".", "!", "?", "\n", ":", "“", "”", '"') or not before


def _positions(place: TokenPlace) -> list[Trait]:
    found = []
    if place.opens_text:
        found.append(OPENS_TEXT)
    if not place.begins or not place.word[0].isalnum():
        return [Trait(TraitKind.POSITION, name) for name in found]
    before = place.neighbour(-1)
    if before.startswith("\n"):
        found.append(OPENS_LINE)
    if before[-1:] in (".", "!", "?") and place.word[0].isupper():
        found.append(OPENS_SENTENCE)
    if turn := place.opens_turn:
        found.append(TURNS[turn])
    return [Trait(TraitKind.POSITION, name) for name in found]


def topics_of(window: Window) -> frozenset[str]:
    """Words of a window that say what it is about, in their base forms: no function words, no names of turns."""
    return frozenset(_topics(window.lowered))


def near_of(place: TokenPlace) -> set[Trait]:
    """What the place's window is about apart from the word itself."""
    own = lexicon().base(place.word.lower())
    return {Trait(TraitKind.NEAR, topic) for topic in topics_of(place.window) if topic != own}


def texts_of(place: TokenPlace) -> list[Trait]:
    """What kind of text the place is in."""
    found = [CODE] if place.window.is_code else []
    if role := place.role:
        found.append(ROLES[role])
    return [Trait(TraitKind.TEXT, name) for name in found]


@lru_cache(maxsize=20_000)
def _topics(words: frozenset[str]) -> frozenset[str]:
    base = lexicon().base
    return frozenset(
        base(word)
        for word in words
        if len(word) > 2 and word not in FUNCTION_WORDS and word not in _ROLE_WORDS
    )


_ROLE_WORDS = frozenset({"human", "user", "assistant", "system", "im_start", "im_end"})


def all_traits(place: TokenPlace) -> set[Trait]:
    """Every trait of a place."""
    return traits_of(place) | near_of(place) | set(texts_of(place))
