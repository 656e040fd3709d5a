"""The questions whose answers may become examples: enough, each once, and none near a question of the test."""

import re
from collections.abc import Sequence

import pytest

from monitor.recipes.smollm2.generations.catalogue import CONTRASTS, EVERYDAY
from monitor.recipes.smollm2.generations.contrast import SpokenContrast
from monitor.recipes.smollm2.generations.example_questions import FOR_EXAMPLES


@pytest.mark.parametrize("contrast", FOR_EXAMPLES, ids=lambda one: one.name)
def test_questions_for_examples_are_many_and_told_as_the_test_s_are_not(contrast: SpokenContrast) -> None:
    (tested,) = [one for one in CONTRASTS if one.name == contrast.name]
    asked = [question.text for question in contrast.questions]
    assert len(asked) == len(set(asked)) == 40
    assert not set(asked) & set(contrast.openings)
    assert bool(contrast.look_alikes) == bool(tested.look_alikes)
    for label in (True, False):
        side, other = contrast.side(label), tested.side(label)
        assert side.judgement == other.judgement
        assert side.told != other.told
        assert len(side.shown) == len(contrast.openings)
        assert not set(side.shown) & set(other.shown)


def test_no_question_for_examples_is_near_one_of_the_test() -> None:
    """The other measure than equal texts: four words in a row, or more than half of all words."""
    mine, tested = _put(FOR_EXAMPLES), [*_put(CONTRASTS), *EVERYDAY]
    assert len(mine) == len(set(mine))
    assert not [(one, other) for one in mine for other in tested if near(one, other)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Do you pay rent?", "Do you pay rent?", True),
        ("Do you have a mother?", "Say, do you have a friend who sings?", True),
        ("How old are you?", "How tall are you?", True),
        ("What did you do yesterday?", "Which sport do you play?", False),
    ],
)
def test_nearness_is_shared_words(one: str, other: str, expected: bool) -> None:
    assert near(one, other) is expected


def _put(contrasts: Sequence[SpokenContrast]) -> list[str]:
    """Everything that is put to the model: questions, look-alikes and the openings before them."""
    return [
        text
        for one in contrasts
        for text in (*one.openings, *(question.text for question in (*one.questions, *one.look_alikes)))
    ]


def near(one: str, other: str) -> bool:
    """Whether two questions share four words in a row, or more than half of all their words."""
    words = [re.findall(r"[\w']+", text.lower()) for text in (one, other)]
    runs = [{tuple(found[at : at + 4]) for at in range(len(found) - 3)} for found in words]
    known = [set(found) for found in words]
    return bool(runs[0] & runs[1]) or 2 * len(known[0] & known[1]) > len(known[0] | known[1])
