from __future__ import annotations

import pytest

from monitor.dictionary.labeller.background import Background
from monitor.dictionary.labeller.places import Window
from monitor.dictionary.labeller.traits import Trait, TraitKind
from tests.dictionary.labeller.windows import tokens_of

TEXTS = ("the cat sat on the mat", "the dog saw the cat", "we met Paris in May")


@pytest.fixture
def background():
    return Background(Window(tokens_of(text)[0]) for text in TEXTS)


def word(value):
    return Trait(TraitKind.WORD, value)


def test_shares_count_places_with_half_a_place_added(background):
    assert background.places == 6 + 5 + 5
    assert background.share([word("the")]) == (4 + 0.5) / 17
    assert background.share([word("cat"), word("dog")]) == (3 + 0.5) / 17
    assert background.share([word("unseen")]) == 0.5 / 17


def test_what_a_text_is_about_counts_by_windows(background):
    assert background.share([Trait(TraitKind.NEAR, "cat")]) == (2 + 0.5) / 4
    assert background.share([Trait(TraitKind.NEAR, "cat"), Trait(TraitKind.NEAR, "dog")]) == (2 + 0.5) / 4


def test_joint_shares_count_places_with_both(background):
    assert background.joint_share([word("cat")], [Trait(TraitKind.AFTER, "the")]) == (2 + 0.5) / 17
    assert background.joint_share([word("the")], [Trait(TraitKind.NEAR, "dog")]) == (2 + 0.5) / 17
    assert background.joint_share([word("cat")], [Trait(TraitKind.AFTER, "dog")]) == 0.5 / 17


def test_names_are_what_stands_with_a_capital_inside_of_sentences(background):
    assert background.is_proper("Paris")
    assert not background.is_proper("Cat")
    assert not background.is_proper("Paris Cat")
    assert background.is_proper("Oslo")  # nothing speaks against it
    assert not background.is_proper("We")
