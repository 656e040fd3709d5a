from __future__ import annotations

from monitor.dictionary.labeller.traits import Trait, TraitKind, all_traits, near_of, topics_of, traits_of
from tests.dictionary.labeller.needs import needs_wordnet
from tests.dictionary.labeller.windows import place


def values(text, kind, **options):
    return {trait.value for trait in all_traits(place(text, **options)) if trait.kind is kind}


@needs_wordnet
def test_a_word_has_its_form_its_base_and_its_category():
    assert values("he has two[ dogs] now", TraitKind.WORD) == {"dogs"}
    assert values("he has two[ dogs] now", TraitKind.BASE) == {"dog"}
    assert {"dogs", "animals"} <= values("he has two[ dogs] now", TraitKind.CATEGORY)
    assert values("an[ explanation] of it", TraitKind.ENDING) == {"ation"}


@needs_wordnet
def test_names_of_two_words_are_names_at_either_word():
    assert "San Francisco" in values("in San[ Francisco] today", TraitKind.NAME)
    assert "San Francisco" in values("in[ San] Francisco today", TraitKind.NAME)
    assert "cities" in values("in[ San] Francisco today", TraitKind.CATEGORY)
    assert values("The[ dog] ran", TraitKind.NAME) == set()
    assert "The Dog" not in values("in The[ Dog] today", TraitKind.NAME)


def test_pieces_say_which_part_of_the_word_they_are():
    assert values("a[ Ant]onio", TraitKind.FIRST) == {"ant"}
    assert {"first pieces of names", "first pieces of long words"} <= values("a[ Ant]onio", TraitKind.PART)
    assert values("Ant[on]io", TraitKind.INNER) == {"on"}
    assert values("Ant|on[io]", TraitKind.LAST) == {"io"}
    assert values("a[ word] here", TraitKind.FIRST) == set()


def test_what_stands_around_is_told():
    text = "I would[ like] to go"
    assert values(text, TraitKind.AFTER) == {"would"}
    assert values(text, TraitKind.SECOND) == {"i"}
    assert values(text, TraitKind.BEFORE) == {"to"}


def test_starts_of_sentences_lines_texts_and_turns():
    assert values("he left. [Then] she", TraitKind.POSITION) == {"first words of sentences"}
    assert values("a\n[b] c", TraitKind.POSITION) == {"first words of lines"}
    assert values("[Then] she", TraitKind.POSITION, opens_text=True) == {"first words of texts"}
    assert "first words of an assistant's answer" in values(
        "Human: hi\n\nAssistant:[ Sure] thing", TraitKind.POSITION
    )
    assert values("he left then[ she]", TraitKind.POSITION) == set()


@needs_wordnet
def test_topics_are_words_in_their_base_form_without_the_word_itself():
    here = place("two[ flights] leave the airports")
    assert topics_of(here.window) == {"flight", "leave", "airport"}
    assert near_of(here) == {Trait(TraitKind.NEAR, "leave"), Trait(TraitKind.NEAR, "airport")}
    assert not any(trait.kind is TraitKind.NEAR for trait in traits_of(here))


def test_kinds_of_text():
    assert values("Assistant: yes, I[ can] do it", TraitKind.TEXT) == {"in an assistant's answer"}
    assert "in code" in values("def f(x):| return[ x] if (x == 1) else {}", TraitKind.TEXT)
