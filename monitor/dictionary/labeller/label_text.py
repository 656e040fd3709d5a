"""`Meaning`: what a label says, as clauses of traits; its text; and what any label's text says, read back.

A label is measured by its text alone, so whatever a label is to say has to stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from monitor.dictionary.labeller.lexicon import lexicon
from monitor.dictionary.labeller.traits import PARTS, POSITIONS, TEXTS, Trait, TraitKind
from monitor.dictionary.labeller.word_classes import ENDINGS, FUNCTION_WORDS, NAMES

UNSEEN = "(never active)"
"""Label of a feature without contexts."""
UNCLEAR = "unclear"
"""Label of a feature whose firing no label predicts."""
_LONGEST = 80
_QUOTED = (
    r"“(?:.+?)”(?=$|,? “|, “| or “| in any form| \(| inside words| after | before | near | two words | in )"
)
_LIST = rf"{_QUOTED}(?:(?:, | or ){_QUOTED})*"
_AROUND = {
    TraitKind.AFTER: "after",
    TraitKind.SECOND: "two words after",
    TraitKind.BEFORE: "before",
    TraitKind.NEAR: "near",
}
_PIECES = {
    TraitKind.FIRST: ("words beginning with ", "", "{}-"),
    TraitKind.INNER: ("", " inside words", "-{}-"),
    TraitKind.LAST: ("words ending in ", "", "-{}"),
    TraitKind.ENDING: ("words in ", "", "-{}"),
}
_OFTEN = ", often "
"""Stands before surroundings that are frequent and not needed."""
_ANY = "words"
"""Stands for what a feature fires on where only what stands around it is known."""
_SHOWN = {"\n": "↵", "\t": "⇥", " ": "␣"}
_READ = {shown: character for character, shown in _SHOWN.items()}


@dataclass(frozen=True)
class Clause:
    """Traits of the word, and traits of what stands around it; one of each is to be there."""

    main: tuple[Trait, ...]
    """What the feature fires on; all of one kind but for names, which stand with words, and in texts that people wrote.

    Empty where the label does not say.
    """
    around: tuple[Trait, ...] = ()
    """Where, all of one kind; empty where the label does not say."""
    hint: bool = False
    """True where `around` is frequent, without the claim that the feature fires nowhere else."""

    def score(self, traits: Set[Trait]) -> float:
        """How well a place with these traits fits: 1 wholly, 0.5 by the word alone, 0.25 by its surroundings, or 0."""
        word = any(trait in traits for trait in self.main)
        where = any(trait in traits for trait in self.around)
        if not self.main or not self.around:
            return float(word or where)
        return 1.0 if word and where else 0.5 * word + 0.25 * where

    def claims(self, traits: Set[Trait]) -> bool:
        """True where the clause says that the feature fires at a place with these traits."""
        return self.score(traits) >= (0.5 if self.hint else 1.0)


@dataclass(frozen=True)
class Meaning:
    """What a label says: the feature fires where one of the clauses holds; without any it says nothing."""

    clauses: tuple[Clause, ...]

    def score(self, traits: Set[Trait]) -> float:
        """How well a place with these traits fits the clause that it fits best."""
        return max((clause.score(traits) for clause in self.clauses), default=0.0)

    def claims(self, traits: Set[Trait]) -> bool:
        """True where the label says that the feature fires at a place with these traits."""
        return any(clause.claims(traits) for clause in self.clauses)


def spell(clauses: Iterable[tuple[Clause, Sequence[str]]], proper: Set[str] = frozenset()) -> str:
    """The label's text, of clauses with words that fit them, most telling first.

    `proper` are the names that are spelt without quotes. Examples are left out where they make the label too long.
    """
    given = list(clauses)
    for count in (3, 2, 0):
        text = "; ".join(_spell_clause(clause, examples[:count], proper) for clause, examples in given)
        if len(text) <= _LONGEST:
            return text
    return text


def _spell_clause(clause: Clause, examples: Sequence[str], proper: Set[str]) -> str:
    around = _spell_around(clause.around)
    if not clause.main:
        return around if clause.around[0].kind is TraitKind.TEXT else f"{_ANY} {around}"
    head = _spell_main(clause.main, proper)
    shown = list(dict.fromkeys(_plain(word) for word in examples))
    if _takes_examples(clause.main[0]) and len(shown) > 1:
        head += f" ({', '.join(shown)})"
    return f"{head}{_OFTEN if clause.hint else ' '}{around}" if around else head


def _spell_main(main: tuple[Trait, ...], proper: Set[str]) -> str:
    kind, values = main[0].kind, [trait.value for trait in main]
    if kind in _PIECES:
        before, after, frame = _PIECES[kind]
        return before + _alternatives([f"“{frame.format(value)}”" for value in values]) + after
    if all(trait.kind is TraitKind.NAME and trait.value in proper for trait in main):
        return _alternatives(values, "and")
    if kind in (TraitKind.WORD, TraitKind.NAME):
        return _alternatives([f"“{_plain(value)}”" for value in values])
    if kind is TraitKind.BASE:
        return _alternatives([f"“{value}”" for value in values]) + " in any form"
    return _alternatives(values)


def _spell_around(around: tuple[Trait, ...]) -> str:
    if not around:
        return ""
    if around[0].kind is TraitKind.TEXT:
        return _alternatives([trait.value for trait in around])
    return f"{_AROUND[around[0].kind]} " + _alternatives([f"“{_plain(trait.value)}”" for trait in around])


def _takes_examples(trait: Trait) -> bool:
    """Words of a class of marks are all the same, and a word needs no example."""
    if trait.kind is TraitKind.CLASS:
        return trait.value not in _WITHOUT_EXAMPLES
    return trait.kind in (*_PIECES, TraitKind.CATEGORY, TraitKind.PART, TraitKind.POSITION)


_MARKS = (
    "commas;full stops;question marks;exclamation marks;colons;semicolons;double quotation marks;apostrophes;slashes;"
    "asterisks;equals signs;hash signs;underscores;line breaks;blank lines;indentations;articles;single digits;"
    "single letters"
)
_WITHOUT_EXAMPLES = frozenset(_MARKS.split(";"))
"""Classes whose name lists all that is in them, or nearly so."""


def _alternatives(values: list[str], last: str = "or") -> str:
    return f" {last} ".join([", ".join(values[:-1]), values[-1]]) if len(values) > 1 else values[0]


def _plain(text: str) -> str:
    """The text with breaks made visible, and spaces where nothing else would be seen."""
    if text == "i":
        return "I"
    return "".join(c if c == " " and not text.isspace() else _SHOWN.get(c, c) for c in text)


def read(label: str) -> Meaning:
    """What a label's text says; of a text that no labeller wrote, its words, and after `near` those that stand near."""
    clauses = [_read_clause(part) for part in re.split(r"; (?![^“]*”)", label)]
    known = tuple(clause for clause in clauses if clause is not None)
    return Meaning(known if len(known) == len(clauses) else (_read_free(label),))


def _read_clause(text: str) -> Clause | None:
    head, around = _read_around(text)
    if around and head.endswith(_OFTEN.rstrip()):
        return Clause(_read_main(head.removesuffix(_OFTEN.rstrip())), around, hint=True)
    if head in ("", _ANY) and around:
        return Clause((), around)
    main = _read_main(head)
    return Clause(main, around) if main else None


def _read_around(label: str) -> tuple[str, tuple[Trait, ...]]:
    for text in TEXTS:
        if label == text or label.endswith(f" {text}"):
            return label.removesuffix(text).rstrip(), (Trait(TraitKind.TEXT, text),)
    for kind, words in sorted(_AROUND.items(), key=lambda item: -len(item[1])):
        found = re.search(rf"(?:^| ){words} ({_LIST})$", label)
        if found is not None:
            return label[: found.start()], tuple(
                Trait(kind, value.lower()) for value in _quoted(found.group(1))
            )
    return label, ()


def _read_main(head: str) -> tuple[Trait, ...]:
    head = re.sub(r" \(\S.*\)$", "", head)
    for kind, (before, after, frame) in _PIECES.items():
        if head.startswith(f"{before}“") and head.endswith(f"”{after}"):
            values = _quoted(head[len(before) : len(head) - len(after)])
            bare = [value.strip("-") for value in values]
            if all(frame.format(b) == v for b, v in zip(bare, values, strict=True)) and (
                kind is not TraitKind.ENDING or all(b in ENDINGS for b in bare)
            ):
                return tuple(Trait(kind, value) for value in bare)
    if re.fullmatch(rf"{_LIST} in any form", head):
        return tuple(Trait(TraitKind.BASE, value) for value in _quoted(head))
    if re.fullmatch(_LIST, head):
        return tuple(
            Trait(TraitKind.NAME if value != value.lower() else TraitKind.WORD, value)
            for value in _quoted(head)
        )
    return _read_phrases(head)


def _read_phrases(head: str) -> tuple[Trait, ...]:
    known = _known_phrases()
    if head in known:
        return (known[head],)
    if head == _ANY:
        return ()
    parts = re.split(r", | or | and ", head)
    if all(part in known for part in parts):
        return tuple(known[part] for part in parts)
    return (
        tuple(Trait(TraitKind.NAME, part) for part in parts) if all(_is_name(part) for part in parts) else ()
    )


def _known_phrases() -> dict[str, Trait]:
    if not _PHRASES:
        for kind, names in (
            (TraitKind.CATEGORY, lexicon().phrases),
            (TraitKind.PART, PARTS),
            (TraitKind.POSITION, POSITIONS),
            (TraitKind.CLASS, NAMES),
        ):
            _PHRASES.update({name: Trait(kind, name) for name in names})
    return _PHRASES


_PHRASES: dict[str, Trait] = {}


def _read_free(label: str) -> Clause:
    """The words of a label that a person, or an earlier labeller, wrote."""
    words, _, near = label.partition("near ")
    main = [Trait(kind, value) for value in _free_words(words) for kind in (TraitKind.WORD, TraitKind.BASE)]
    around = [Trait(TraitKind.NEAR, lexicon().base(value)) for value in _free_words(near)]
    return Clause(tuple(main), tuple(around), hint=True)


def _free_words(text: str) -> list[str]:
    """Words and signs of a free text: without function words, unless it has nothing else."""
    parts = [part.replace("↵", "\n") for part in re.split(r"[\s·“”]+|,(?=\s)|,$", text.lower()) if part]
    telling = [part for part in parts if part not in FUNCTION_WORDS and part not in _FILLER]
    return telling or [part for part in parts if part not in _FILLER]


_FILLER = frozenset({"words", "word"})


def _is_name(part: str) -> bool:
    return bool(part) and part[0].isupper() and all(word[0].isupper() for word in part.split())


def _quoted(text: str) -> list[str]:
    found = re.findall(rf"({_QUOTED})", text)
    return ["".join(_READ.get(character, character) for character in value[1:-1]) for value in found]
