"""Demonstrations as a page: the table, the slider, unedited samples, and the failures."""

import json

import pytest

from monitor.lab.cost.points import Share
from monitor.lab.demonstrations.choice import Candidate, FeatureChoice
from monitor.lab.demonstrations.demonstration import ClampSetting
from monitor.lab.demonstrations.related import Neighbour, Neighbours, Shared, SharedFeatures
from monitor.lab.demonstrations.report import HEADS, as_json, failures, page, rows, samples
from monitor.lab.demonstrations.study import Answers, Demonstrated
from monitor.lab.demonstrations.writer import Distance
from monitor.records import Where
from tests.lab.demonstrations.planted import PLANTED

NONE = Share(0.0, 0.0, 0.3, 6)
PLAIN = ("rain", "a house", "film", "cake", "", "bread")
STEERED = ("films and actors", "movie `````", "film | x", "cake", "sun", "moon")


def answers(setting, texts, kl):
    holds = tuple(PLANTED.judgement.holds(text) for text in texts)
    return Answers(setting, texts, holds, (), NONE, Distance(12.5, kl))


@pytest.fixture
def one():
    setting = ClampSetting(2.0, Where.EVERYWHERE)
    chosen = Candidate(7, "power", 0.95, 1.0, 0.25, 0.5)
    other = Candidate(9, "", 0.9, 0.5, 0.0, 0.0)
    return Demonstrated(
        PLANTED,
        FeatureChoice(chosen, (chosen, other), setting),
        tuple(f"prompt {i}" for i in range(6)),
        answers(None, PLAIN, 0.0),
        (answers(ClampSetting(1.0, Where.EVERYWHERE), PLAIN, 0.1), answers(setting, STEERED, 0.75)),
        Neighbours((Neighbour(3, "strength", 0.5, 0.75),), Share(0.25, 0.2, 0.3, 400)),
        SharedFeatures((Shared(0, 1, 7, "power", 0.75, 0.0), Shared(0, 2, -1, "", 0.0, 0.0))),
    )


def test_worked_is_shown_with_and_not_without(one):
    assert one.worked == (True, True, False, False, False, False)
    (row,) = rows([one])
    assert len(row) == len(HEADS)
    assert row[:5] == (PLANTED.title, "7 power", "2 × maximum, every token", "2 of 6 (10%–70%)", "50%")
    assert row[5:] == ("17%", "0%", "12.5 / 12.5", "0.75")


def test_samples_are_the_first_and_failures_those_after_them(one):
    assert [sample[0] for sample in samples(one)] == ["prompt 0", "prompt 1", "prompt 2"]
    assert [sample[3] for sample in samples(one)] == [True, True, False]
    assert failures(one) == [
        ("prompt 3", "cake", "cake"),
        ("prompt 4", "", "sun"),
        ("prompt 5", "bread", "moon"),
    ]


def test_the_page_hides_nothing(one):
    text = page([one], "Model M.")
    for words in (
        "Model M.",
        "Shown: the answer speaks of films, actors or the cinema.",
        "| 1 × maximum, every token | 17% (3%–56%) |",
        "with (did not work): film | x",
        "without: (nothing)",
        "It did not work on 4 of 6 prompts",
        "7 (power; 0.50), 9 (0.00)",
        "3 strength (cosine 0.50, AUROC 0.75)",
        "100% of them separate the same texts with an AUROC of 0.65 or more; of features drawn at random 25% do",
        "In 1 of 2",
    ):
        assert words in text
    assert "``````text\nprompt: prompt 1" in text, "a text with a fence in it stands in a longer one"


def test_json_holds_every_text(one):
    (record,) = json.loads(as_json([one], "Model M."))["demonstrations"]
    assert [found["setting"] for found in record["answers"]] == [
        None,
        "1 × maximum, every token",
        "2 × maximum, every token",
    ]
    assert record["answers"][2]["texts"] == list(STEERED)
    assert record["worked"] == list(one.worked)
