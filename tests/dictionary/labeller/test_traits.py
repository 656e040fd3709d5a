from __future__ import annotations

from monitor.dictionary.labeller.traits import Kind, Trait, all_traits, near_of, topics_of, traits_of
from tests.dictionary.labeller.windows import place


def values(text, kind, **options):
    return {trait.value for trait in all_traits(place(text, **options)) if trait.kind is kind}


def test_a_word_has_its_form_its_base_and_its_category():
    assert values("he has two[ dogs] now", Kind.WORD) == {"dogs"}
    assert values("he has two[ dogs] now", Kind.BASE) == {"dog"}
    assert {"dogs", "animals"} <= values("he has two[ dogs] now", Kind.CATEGORY)
    assert values("an[ explanation] of it", Kind.ENDING) == {"ation"}


def test_names_of_two_words_are_names_at_either_word():
    assert "San Francisco" in values("in San[ Francisco] today", Kind.NAME)
    assert "San Francisco" in values("in[ San] Francisco today", Kind.NAME)
    assert "cities" in values("in[ San] Francisco today", Kind.CATEGORY)
    assert values("The[ dog] ran", Kind.NAME) == set()
    assert "The Dog" not in values("in The[ Dog] today", Kind.NAME)


def test_pieces_say_which_part_of_the_word_they_are():
    assert values("a[ Ant]onio", Kind.FIRST) == {"ant"}
    assert {"first pieces of names", "first pieces of long words"} <= values("a[ Ant]onio", Kind.PART)
    assert values("Ant[on]io", Kind.INNER) == {"on"}
    assert values("Ant|on[io]", Kind.LAST) == {"io"}
    assert values("a[ word] here", Kind.FIRST) == set()


def test_what_stands_around_is_told():
    text = "I would[ like] to go"
    assert values(text, Kind.AFTER) == {"would"}
    assert values(text, Kind.SECOND) == {"i"}
    assert values(text, Kind.BEFORE) == {"to"}


def test_starts_of_sentences_lines_texts_and_turns():
    assert values("he left. [Then] she", Kind.POSITION) == {"first words of sentences"}
    assert values("a\n[b] c", Kind.POSITION) == {"first words of lines"}
    assert values("[Then] she", Kind.POSITION, opens_text=True) == {"first words of texts"}
    assert "first words of an assistant's answer" in values(
        "Human: hi\n\nAssistant:[ Sure] thing", Kind.POSITION
    )
    assert values("he left then[ she]", Kind.POSITION) == set()


def test_topics_are_words_in_their_base_form_without_the_word_itself():
    here = place("two[ flights] leave the airports")
    assert topics_of(here.window) == {"flight", "leave", "airport"}
    assert near_of(here) == {Trait(Kind.NEAR, "leave"), Trait(Kind.NEAR, "airport")}
    assert not any(trait.kind is Kind.NEAR for trait in traits_of(here))


def test_kinds_of_text():
    assert values("Assistant: yes, I[ can] do it", Kind.TEXT) == {"in an assistant's answer"}
    assert "in code" in values("def f(x):| return[ x] if (x == 1) else {}", Kind.TEXT)
