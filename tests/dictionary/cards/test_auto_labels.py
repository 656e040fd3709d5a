from __future__ import annotations

from monitor.dictionary.cards.auto_labels import UNSEEN, name_features
from monitor.dictionary.cards.card_file import Context, FeatureCard


def _card(feature, *contexts):
    return FeatureCard(feature, tuple(contexts), ((" gain", 2.0), (" lose", 1.0)), (), ())


def _context(text, **levels):
    tokens = tuple(f" {word}" for word in text.split())
    given = tuple(levels.get(word, 0) for word in text.split())
    return Context(5.0, given.index(max(given)), tokens, given)


def test_a_label_names_the_words_fired_on():
    card = _card(0, _context("I want power now", power=90), _context("more power please", power=80, more=10))
    assert name_features([card])[0] == "power"


def test_pieces_of_words_count_as_the_word():
    context = Context(5.0, 2, (" they", " acqu", "iring", " it"), (0, 0, 100, 0))
    assert name_features([_card(0, context)])[0] == "acquiring"


def test_words_that_stand_near_are_named_unless_they_stand_everywhere():
    held = [
        _context(f"the robot said {word} today", **{word: 100})
        for word in ("a1", "b2", "c3", "d4", "e5", "f6")
    ]
    others = [_card(i, _context("the cat sat today", cat=100)) for i in range(1, 9)]
    assert name_features([_card(0, *held), *others])[0] == "many words, a1, b2, c3 · near robot, said"


def test_a_feature_without_contexts_says_so():
    assert name_features([_card(3)])[3] == UNSEEN
