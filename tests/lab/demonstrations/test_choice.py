"""The choice of a feature: candidates by contrast, then by what they do on development prompts alone."""

import dataclasses

import pytest

from monitor.errors import InputError
from monitor.lab.demonstrations.choice import (
    CANDIDATES,
    POOL,
    candidates,
    choose,
    contrast_of,
    shortlist,
    telling_tokens,
)
from monitor.lab.demonstrations.judgement import Judgement
from monitor.lab.demonstrations.writer import Writer
from tests.lab.demonstrations.planted import PLANTED


@pytest.fixture(scope="module")
def contrast(opened):
    return contrast_of(opened, PLANTED)


@pytest.fixture(scope="module")
def writer(opened):
    return Writer(opened, PLANTED.new, temperature=0.0, seed=0)


class Written:
    """A writer that is asked for development prompts alone."""

    def __init__(self, writer):
        self._writer, self.prompts = writer, []

    def write(self, prompts, *rest):
        self.prompts.append(tuple(prompts))
        return self._writer.write(prompts, *rest)

    def specificity(self, prompts, *rest):
        self.prompts.append(tuple(prompts))
        return self._writer.specificity(prompts, *rest)


def test_candidates_separate_the_texts(opened, contrast):
    found = candidates(opened, contrast)
    assert len({one.feature for one in found}) == len(found) == POOL
    assert all(one.auroc > 0.5 for one in found)
    assert max(one.auroc for one in found) > 0.9
    assert any("movie" in one.label for one in found)
    assert len(candidates(opened, contrast, 3)) == 3


def test_what_nothing_separates_is_said(opened):
    same = dataclasses.replace(PLANTED, about=PLANTED.about[:1] * 4, other=PLANTED.about[:1] * 4)
    with pytest.raises(InputError, match="no feature of this dictionary tells the texts apart"):
        candidates(opened, contrast_of(opened, same))


def test_the_feature_that_brings_the_subject_up_is_chosen(opened, contrast, writer):
    watched = Written(writer)
    listed = shortlist(PLANTED, candidates(opened, contrast), telling_tokens(opened, contrast), watched)
    assert len(listed) == CANDIDATES
    choice = choose(PLANTED, listed, watched)
    assert all(prompts == PLANTED.development for prompts in watched.prompts)
    assert choice.chosen.degree == max(one.degree for one in choice.candidates) > 0.2
    assert choice.setting in PLANTED.settings


def test_another_judgement_chooses_another_strength_or_nothing(opened, contrast, writer):
    never = dataclasses.replace(PLANTED, judgement=Judgement("names a zebra", ("zebra",)))
    choice = choose(never, candidates(opened, contrast, 3), writer)
    assert choice.chosen.degree == 0
    assert choice.chosen.auroc == max(one.auroc for one in choice.candidates), "of equals the better detector"
    assert choice.setting == never.settings[0], "of equals the mildest"


def test_tokens_that_tell_the_texts_apart(opened, contrast):
    found = [opened.loaded.tokenizer.decode([token]) for token in telling_tokens(opened, contrast)]
    assert " movie" in found[:2]
    assert not {" the", " a"} & set(found)
