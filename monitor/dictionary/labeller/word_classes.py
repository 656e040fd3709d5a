"""Classes of words that can be listed or told by their shape: pronouns, numbers, commas, names in code.

Each class has a name that stands in labels, in the plural.
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from functools import lru_cache

_LISTED = {
    "personal pronouns": "i you he she it we they me him us them one",
    "reflexive pronouns": "myself yourself himself herself itself ourselves yourselves themselves oneself",
    "possessives": "my your his her its our their mine yours hers ours theirs whose",
    "articles": "a an the",
    "demonstratives": "this that these those",
    "quantity words": "all any both each every few many more most much none several some enough less least",
    "prepositions": "about above across after against along amid among around at before behind below beneath beside "
    "besides between beyond by down during for from in inside into near of off on onto out outside over past since "
    "through throughout till to toward towards under until unto up upon via with within without",
    "conjunctions": "and or but nor yet so because although though unless while whereas whether if than as since",
    "forms of “be”": "be am is are was were been being isn't aren't wasn't weren't",
    "forms of “have”": "have has had having haven't hasn't hadn't",
    "forms of “do”": "do does did doing done don't doesn't didn't",
    "modal verbs": "can could may might must shall should will would ought can't cannot couldn't shouldn't won't "
    "wouldn't mustn't mightn't",
    "question words": "what when where which who whom whose why how",
    "negations": "not no never none nothing nobody nowhere neither nor cannot can't don't doesn't didn't isn't aren't "
    "wasn't weren't won't wouldn't couldn't shouldn't haven't hasn't hadn't ain't",
    "number words": "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand "
    "million billion dozen",
    "ordinal numbers": "first second third fourth fifth sixth seventh eighth ninth tenth last next",
    "months": "january february march april may june july august september october november december",
    "days of the week": "monday tuesday wednesday thursday friday saturday sunday",
    "words for when": "now then today tomorrow yesterday tonight soon later already still again always often sometimes "
    "usually recently early late once ever",
    "titles before names": "mr mrs ms miss dr sir madam lady lord captain professor prof",
    "greetings and thanks": "hello hi hey thanks thank goodbye bye welcome please sorry okay ok yes yeah no",
    "words of degree": "very quite rather too extremely really highly almost nearly hardly barely fairly pretty",
    "linking adverbs": "however therefore moreover furthermore thus hence nevertheless instead otherwise additionally "
    "finally meanwhile consequently overall",
}
_MARKS = {
    "commas": ",",
    "full stops": ".",
    "question marks": "?",
    "exclamation marks": "!",
    "colons": ":",
    "semicolons": ";",
    "double quotation marks": '"“”«»`',
    "apostrophes": "'’‘",
    "hyphens and dashes": "-–—",
    "opening brackets": "([{",
    "closing brackets": ")]}",
    "slashes": "/\\",
    "asterisks": "*",
    "equals signs": "=",
    "hash signs": "#",
    "underscores": "_",
    "dots of omission": "…",
    "currency signs": "$€£¥",
}
_SHAPES = {
    "numbers": r"\d[\d.,]*",
    "single digits": r"\d",
    "years": r"1[5-9]\d\d|20\d\d",
    "times of day": r"\d{1,2}:\d\d",
    "numbers with letters": r"(?=\w*\d)(?=\w*[^\W\d_])\w+",
    "ordinal numbers": r"\d+(?:st|nd|rd|th)",
    "words in capitals": r"[A-Z]{2,}s?",
    "single letters": r"[^\W\d_]",
    "names in camel case": r"[A-Za-z]+[a-z][A-Z]\w*",
    "names with underscores": r"\w*[^\W_]_\w+|_+[^\W\d_]\w*",
    "Python exceptions": r"[A-Z]\w*(?:Error|Exception|Warning)",
    "contractions": r"\w+['’](?:s|t|re|ve|ll|d|m)",
    "control tokens": r"<\|[^|]*\|>",
    "line breaks": r"\n",
    "blank lines": r"\n\n+",
    "indentations": r"[ \t]{2,}",
}
_ENDINGS = (
    "ing ed ly tion tions sion ness ment ments able ible ism ist ists ity ities ous ive ful less ology ship ance ence "
    "ation ations er ers est al ic ical ate ates ize izes ized ise"
)
ENDINGS = frozenset(_ENDINGS.split())
"""Endings of words that labels name, as in `words in “-tion”`."""
_OF_WORD: dict[str, list[str]] = {}
for _name, _words in _LISTED.items():
    for _word in _words.split():
        _OF_WORD.setdefault(_word, []).append(_name)
_COMPILED = {name: re.compile(pattern) for name, pattern in _SHAPES.items()}
_OF_MARK = {mark: name for name, marks in _MARKS.items() for mark in marks}
_PYTHON = "Python keywords"
_SCRIPTS = {
    "CYRILLIC": "Cyrillic letters",
    "GREEK": "Greek letters",
    "CJK": "Chinese characters",
    "HIRAGANA": "Japanese characters",
    "KATAKANA": "Japanese characters",
    "HANGUL": "Korean letters",
    "ARABIC": "Arabic letters",
    "HEBREW": "Hebrew letters",
    "DEVANAGARI": "Devanagari letters",
}
ACCENTED = "words with accents"
NAMES = frozenset({*_LISTED, *_MARKS, *_SHAPES, _PYTHON, *_SCRIPTS.values(), ACCENTED, "other signs"})
"""The names of all classes."""
_TELLING = {"months", "days of the week", "titles before names"}
FUNCTION_WORDS = frozenset(word for word, names in _OF_WORD.items() if not _TELLING.issuperset(names))
"""Words that say little about what a text is about."""


@lru_cache(maxsize=200_000)
def classes_of(word: str) -> tuple[str, ...]:
    """The classes of a word, a mark or a break, by its listed words and its shape."""
    lowered = word.lower().replace("’", "'")
    found = list(_OF_WORD.get(lowered, ()))
    found += [name for name, shape in _COMPILED.items() if shape.fullmatch(word)]
    if word in keyword.kwlist:
        found.append(_PYTHON)
    if not word[0].isalnum() and word[0] not in "\n \t<_":
        found += sorted({_OF_MARK.get(mark, "other signs") for mark in word})
    elif not word.isascii():
        found += _scripts(word)
    return tuple(dict.fromkeys(found))


def ending_of(word: str) -> str | None:
    """The longest listed ending of a word of five letters or more."""
    lowered = word.lower()
    if len(lowered) < 5 or not lowered.isalpha():
        return None
    fitting = [ending for ending in ENDINGS if lowered.endswith(ending) and len(ending) + 2 < len(lowered)]
    return max(fitting, key=len, default=None)


def _scripts(word: str) -> list[str]:
    names = [unicodedata.name(letter, "").split(" ")[0] for letter in word if not letter.isascii()]
    return sorted({_SCRIPTS.get(name, ACCENTED) for name in names if name in _SCRIPTS or name == "LATIN"})
