"""Labels: their text, and what is read of it."""

from __future__ import annotations

import pytest

from monitor.dictionary.labeller.label_text import Clause, read, spell
from monitor.dictionary.labeller.traits import Trait, TraitKind


def traits(kind, *given):
    return tuple(Trait(kind, value) for value in given)


CASES = [
    (Clause(traits(TraitKind.WORD, "power")), (), "“power”"),
    (Clause(traits(TraitKind.WORD, "power", ",", "”")), (), "“power”, “,” or “””"),
    (Clause(traits(TraitKind.NAME, "San Francisco", "California")), (), "San Francisco and California"),
    (Clause(traits(TraitKind.NAME, "Add")), (), "“Add”"),
    (Clause(traits(TraitKind.BASE, "promise", "swear")), (), "“promise” or “swear” in any form"),
    (
        Clause(traits(TraitKind.FIRST, "ant")),
        ("Antonio", "Antarctica"),
        "words beginning with “ant-” (Antonio, Antarctica)",
    ),
    (Clause(traits(TraitKind.INNER, "o")), (), "“-o-” inside words"),
    (Clause(traits(TraitKind.LAST, "ser", "'t")), (), "words ending in “-ser” or “-'t”"),
    (Clause(traits(TraitKind.ENDING, "tion")), ("nation", "ration"), "words in “-tion” (nation, ration)"),
    (
        Clause(traits(TraitKind.CATEGORY, "cities")),
        ("San Francisco", "Oslo", "Oslo"),
        "cities (San Francisco, Oslo)",
    ),
    (Clause(traits(TraitKind.CLASS, "commas")), (",", ",)"), "commas"),
    (Clause(traits(TraitKind.CLASS, "currency signs")), ("($", "$"), "currency signs (($, $)"),
    (Clause(traits(TraitKind.POSITION, "first words of lines")), (), "first words of lines"),
    (
        Clause(traits(TraitKind.WORD, "to"), traits(TraitKind.AFTER, "want", "like")),
        (),
        "“to” after “want” or “like”",
    ),
    (
        Clause(traits(TraitKind.WORD, "to"), traits(TraitKind.AFTER, "want"), hint=True),
        (),
        "“to”, often after “want”",
    ),
    (
        Clause(traits(TraitKind.WORD, "\n\n"), traits(TraitKind.SECOND, "dear")),
        (),
        "“↵↵” two words after “dear”",
    ),
    (Clause((), traits(TraitKind.BEFORE, "of")), ("a", "b"), "words before “of”"),
    (Clause((), traits(TraitKind.NEAR, "flight", "airport")), (), "words near “flight” or “airport”"),
    (Clause((), traits(TraitKind.TEXT, "in code")), (), "in code"),
    (
        Clause(traits(TraitKind.WORD, "it"), traits(TraitKind.TEXT, "in an assistant's answer")),
        (),
        "“it” in an assistant's answer",
    ),
]


@pytest.mark.parametrize(("clause", "examples", "text"), CASES, ids=[text for _, _, text in CASES])
def test_what_a_label_says_is_read_back_from_its_text_alone(clause, examples, text):
    proper = {"San Francisco", "California"}
    assert spell([(clause, examples)], proper) == text
    assert read(text).clauses == (clause,)


def test_two_clauses_stand_with_a_semicolon_between_them():
    first, second = Clause(traits(TraitKind.WORD, ";", "a; b")), Clause(traits(TraitKind.CATEGORY, "dogs"))
    text = spell([(first, ()), (second, ("poodle", "terrier"))])
    assert text == "“;” or “a; b”; dogs (poodle, terrier)"
    assert read(text).clauses == (first, second)


def test_a_label_that_grows_too_long_has_fewer_examples():
    clause = Clause(traits(TraitKind.CATEGORY, "cities"))
    assert spell([(clause, ["x" * 30, "y" * 30, "z" * 30])]).count(",") == 1
    assert spell([(clause, ["x" * 60, "y" * 60])]) == "cities"


def test_texts_that_people_wrote_are_read_word_by_word():
    free = read("talk of power and control")
    assert free.score({Trait(TraitKind.WORD, "power")}) == 1
    assert free.score({Trait(TraitKind.BASE, "control")}) == 1
    assert free.score({Trait(TraitKind.WORD, "and")}) == 0
    near = read("seeking · near power")
    assert near.score({Trait(TraitKind.WORD, "seeking"), Trait(TraitKind.NEAR, "power")}) == 1
    assert near.score({Trait(TraitKind.WORD, "seeking")}) == 0.5
    assert near.claims({Trait(TraitKind.WORD, "seeking")})
    assert read("the").score({Trait(TraitKind.WORD, "the")}) == 1


def test_a_word_in_its_surroundings_fits_better_than_either_alone():
    meaning = read("“to” after “want”")
    to, want = Trait(TraitKind.WORD, "to"), Trait(TraitKind.AFTER, "want")
    assert [meaning.score(own) for own in ({to, want}, {to}, {want}, set())] == [1.0, 0.5, 0.25, 0.0]
    assert meaning.claims({to, want})
    assert not meaning.claims({to})
    assert read("“to”, often after “want”").claims({to})
    assert read("“a”; “to”").score({to}) == 1.0
