"""Labels of a small made-up dictionary: two features that mean something, one that does not, one that never fires."""

from __future__ import annotations

import random

import pytest

from monitor.dictionary.cards.firing_file import DrawnPlace, Firings
from monitor.dictionary.cards.labels import Labels, LabelScore
from monitor.dictionary.labeller.dictionary_labels import (
    FeatureLabel,
    in_place_of,
    label_dictionary,
    summary,
)
from monitor.dictionary.labeller.label_text import UNCLEAR, UNSEEN
from tests.dictionary.labeller.windows import card, context

SAID = "the house stood near old river and she walked into town that he said of king was great again"
WORDS = SAID.split()


def sentence(rng, word, level=100):
    before, after = rng.choices(WORDS, k=9), rng.choices(WORDS, k=4)
    return context(f"{' '.join(before)}[ {word}] {' '.join(after)}", level=level)


@pytest.fixture(scope="module")
def made():
    rng = random.Random(5)
    rows = [["power"], ["Boston", "Chicago", "Denver"], WORDS]
    cards = [card(f, *(sentence(rng, rng.choice(row)) for _ in range(8))) for f, row in enumerate(rows)] + [
        card(3)
    ]
    firings = [tuple(sentence(rng, rng.choice(row), level=60) for _ in range(16)) for row in rows] + [()]
    places = []
    for _ in range(150):
        shown = sentence(rng, rng.choice([*WORDS, "power", "Boston"]))
        word = shown.tokens[shown.at].strip()
        places.append(
            DrawnPlace(shown.at, shown.tokens, (0,) if word == "power" else (1,) if word == "Boston" else ())
        )
    return (
        cards,
        Firings(tuple(places), firings),
        list(label_dictionary(cards, Firings(tuple(places), firings))),
    )


def test_labels_predict_where_features_fire_and_others_do_not(made):
    power, cities, _, _ = made[2]
    assert power.text == "“power”"
    assert set(cities.text.replace(",", "").split()) == {"Boston", "Chicago", "and", "Denver"}
    assert power.score.auroc == 1.0
    assert power.score.strong == 1.0
    assert cities.score.auroc == 1.0
    assert cities.shuffled.auroc == 0.5


def test_a_feature_that_no_label_predicts_is_unclear_and_its_guess_is_kept(made):
    nothing = made[2][2]
    assert nothing.text == UNCLEAR
    assert nothing.score.firing > 5
    assert not nothing.score.above_chance


def test_a_feature_that_never_fires_says_so(made):
    assert made[2][3] == FeatureLabel(3, UNSEEN)


def test_cards_alone_give_labels_too(made):
    labels = list(label_dictionary(made[0]))
    assert [label.text for label in labels][::3] == ["“power”", UNSEEN]
    assert labels[0].score.firing == 2


def test_the_same_evidence_gives_the_same_labels(made):
    assert list(label_dictionary(made[0], made[1])) == made[2]


def test_the_summary_is_of_all_labels_that_were_tried():
    score = LabelScore(0.9, 1.0, 0.8, 10, 5, 20, 8, 0.1)
    labels = [
        FeatureLabel(0, "“a”", "“a”", score),
        FeatureLabel(1, UNCLEAR, score=LabelScore(0.5, 0.5, 0.5, 10, 5, 20, 0, 0.0)),
        FeatureLabel(2, UNSEEN),
        FeatureLabel(
            3,
            UNCLEAR,
            "“b”",
            LabelScore(0.4, None, 0.5, 10, 0, 20, 0, 0.1),
            LabelScore(0.5, None, 0.5, 10, 0, 20, 0, 0.1),
        ),
    ]
    found = summary(labels)
    assert (found.tried, found.unclear, found.strong, found.shuffled) == (3, 2, 0.75, 0.5)
    assert found.auroc == pytest.approx((0.9 + 0.5 + 0.4) / 3)
    assert summary([]).tried == 0


def test_hand_labels_stay_and_guesses_are_those_of_unclear_labels(made):
    before = Labels(hand={0: "wants power"}, auto={0: "old", 9: "old"})
    after = in_place_of(before, made[2])
    assert after.best(0) == "wants power"
    assert set(after.auto) == {0, 1, 2, 3}
    assert after.scores[0] == made[2][0].score
    assert set(after.guesses) <= {2}
