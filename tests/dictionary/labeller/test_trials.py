from __future__ import annotations

import pytest

from monitor.dictionary.cards.labels import LabelScore
from monitor.dictionary.labeller.label_text import read
from monitor.dictionary.labeller.traits import Trait, TraitKind
from monitor.dictionary.labeller.trials import Origin, Trial, score


def trial(word, origin=Origin.FIRING, strength=1.0, before=""):
    around = {Trait(TraitKind.AFTER, before)} if before else set()
    return Trial({Trait(TraitKind.WORD, word), *around}, origin, strength)


def test_a_label_that_is_always_right_scores_one():
    trials = [trial("power"), trial("power"), trial("the", Origin.CORPUS), trial("a", Origin.CONTEXT)]
    expected = LabelScore(1.0, 1.0, 1.0, firing=2, strongly=2, silent=2, right=2, common=0.1)
    assert score(read("“power”"), trials, 0.1) == expected


def test_chance_scores_one_half_and_the_opposite_zero():
    trials = [trial("power"), trial("power"), trial("the", Origin.NEIGHBOUR)]
    assert score(read("“table”"), trials).auroc == 0.5
    assert score(read("“the”"), trials).auroc == 0.0
    assert score(read("“the”"), trials).accuracy == 0.0


def test_strong_activations_are_scored_by_themselves():
    trials = [trial("power", strength=0.9), trial("odd", strength=0.1), trial("the", Origin.CORPUS)]
    found = score(read("“power”"), trials)
    assert (found.auroc, found.strong, found.strongly) == (0.75, 1.0, 1)
    assert score(read("“power”"), trials[1:]).strong is None


def test_a_partial_fit_ranks_but_is_no_claim():
    trials = [
        trial("to", before="want"),
        trial("to"),
        trial("the", Origin.CORPUS),
        trial("to", Origin.CONTEXT),
    ]
    found = score(read("“to” after “want”"), trials)
    assert found.auroc == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert found.accuracy == pytest.approx((0.5 + 1.0) / 2)


def test_without_both_kinds_of_places_there_is_no_score():
    assert score(read("“to”"), [trial("to")]) is None
    assert score(read("“to”"), [trial("to", Origin.CORPUS)]) is None
