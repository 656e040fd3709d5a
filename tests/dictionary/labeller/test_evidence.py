from __future__ import annotations

from dataclasses import replace

from monitor.dictionary.cards.firing_file import DrawnPlace
from monitor.dictionary.labeller.evidence import DrawnTrials, gather, window_of
from monitor.dictionary.labeller.traits import Trait, TraitKind
from monitor.dictionary.labeller.trials import Origin
from tests.dictionary.labeller.windows import card, context


def drawn(*texts, active=()):
    shown = [context(text) for text in texts]
    return DrawnTrials([DrawnPlace(c.at, c.tokens, active) for c in shown])


def words(trials, origin):
    return [
        t.value
        for trial in trials
        if trial.origin is origin
        for t in trial.traits
        if t.kind is TraitKind.WORD
    ]


def test_every_second_drawn_place_is_held_out_and_no_text_is_on_both_sides():
    firings = [context(f"some text {n} before[ word{n}] and after", peak=9.0 - n) for n in range(8)]
    again = replace(firings[1], peak=0.5)
    found = gather(card(0, context("the[ top] one here")), [*firings, again], drawn("a[ place] here"))
    made_from = [place.word for place in found.firing]
    assert made_from == ["top", "word1", "word3", "word5", "word7"]
    assert words(found.trials, Origin.FIRING) == ["word0", "word2", "word4", "word6"]


def test_a_card_alone_holds_out_every_third_context():
    contexts = [context(f"context number {n} has[ word{n}] inside") for n in range(6)]
    found = gather(card(0, *contexts), [], drawn("a[ place] here"))
    assert [place.word for place in found.firing] == ["word0", "word1", "word3", "word4"]
    assert words(found.trials, Origin.FIRING) == ["word2", "word5"]


def test_with_too_few_places_held_out_contexts_of_the_card_are_too():
    contexts = [context(f"context number {n} has[ word{n}] inside") for n in range(4)]
    found = gather(card(0, *contexts), [context("it was[ drawn] here")], drawn())
    assert words(found.trials, Origin.FIRING) == ["word2", "drawn"]
    assert [place.word for place in found.firing] == ["word0", "word1", "word3"]


def test_silent_places_are_tokens_where_the_feature_does_not_fire():
    shown = context("one two[ three] four five")
    shown = replace(shown, levels=(0, 50, 100, 50, 0))
    assert (
        gather(card(0, shown), [], drawn()).silent == ()
    )  # only the first and the last are silent, and those are cut
    shown = replace(shown, levels=(0, 0, 100, 50, 0))
    assert [place.word for place in gather(card(0, shown), [], drawn()).silent] == ["two"]


def test_places_of_the_corpus_are_those_where_the_feature_is_silent():
    places = drawn("he[ fires] here", active=(7,))
    assert places.corpus(7, 5) == []
    assert words(places.corpus(8, 5), Origin.CORPUS) == ["fires"]


def test_near_misses_are_places_where_a_neighbour_fires_and_the_feature_does_not():
    near, both = context("only[ neighbour] fires"), context("now[ both] fire")
    places = DrawnTrials([DrawnPlace(near.at, near.tokens, (3,)), DrawnPlace(both.at, both.tokens, (3, 7))])
    assert words(places.neighbours(7, [3, 4], 5), Origin.NEIGHBOUR) == ["neighbour"]
    assert places.neighbours(7, [4], 5) == []
    assert places.neighbours(7, [3], 0) == []


def test_strengths_of_trials_are_in_units_of_the_maximum():
    firings = [context("here it[ fires] now", level=40), context("there he[ runs] now", level=20)]
    found = gather(card(0), firings, drawn())
    assert [trial.strength for trial in found.trials if trial.fires] == [0.4]


def test_a_window_that_is_cut_short_at_its_start_begins_its_text():
    assert window_of(context("[Once] upon a time")).opens_text
    long = context(" ".join(f"w{n}" for n in range(16)) + "[ here] it")
    assert not window_of(long).opens_text
    assert (
        Trait(TraitKind.POSITION, "first words of texts")
        in next(iter(drawn("[Once] upon").corpus(0, 1))).traits
    )
