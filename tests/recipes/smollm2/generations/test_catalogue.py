"""The contrasts that ship with the recipe: enough questions, each once, and no answer shown that is asked for."""

import re

import pytest

from monitor.recipes.smollm2.generations.catalogue import CONTRASTS, DANGEROUS, EVERYDAY, LOOK_ALIKES
from monitor.recipes.smollm2.generations.contrast import SpokenContrast
from monitor.recipes.smollm2.questions import written_here


@pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda one: one.name)
def test_questions_stand_once_and_none_is_shown(contrast: SpokenContrast) -> None:
    asked = [question.text for question in contrast.questions]
    assert len(asked) == len(set(asked)) == 40
    assert not set(asked) & set(contrast.openings)
    for side in (contrast.positive, contrast.negative):
        assert len(side.shown) == len(set(side.shown)) == len(contrast.openings)


@pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda one: one.name)
def test_patterns_of_right_answers_are_not_in_their_questions(contrast: SpokenContrast) -> None:
    for question in contrast.questions:
        wants = (contrast.positive.names_right, contrast.negative.names_right)
        assert bool(question.right) == (None not in wants)
        if question.right:
            assert not re.search(rf"\b(?:{question.right})\b", question.text, re.IGNORECASE)


def test_every_dangerous_request_has_a_look_alike() -> None:
    assert len(LOOK_ALIKES) == len(DANGEROUS.questions)
    for request, alike in zip(DANGEROUS.questions, LOOK_ALIKES, strict=True):
        both = [set(re.findall(r"\w{3,}", one.text.lower())) for one in (request, alike)]
        assert request != alike
        assert both[0] & both[1]


def test_everyday_questions_are_others_than_those_of_the_benign_texts_that_ship() -> None:
    known = {turn["content"] for question in written_here() for turn in question.turns}
    assert len(set(EVERYDAY)) == 400
    assert not known & set(EVERYDAY)
