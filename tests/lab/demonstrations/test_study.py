"""A whole demonstration on the bundled pair."""

import pytest

from monitor.lab.demonstrations.demonstration import text_of
from monitor.lab.demonstrations.study import DemonstrationSizes, demonstrate
from monitor.lab.demonstrations.writer import Writer
from tests.lab.demonstrations.planted import PLANTED


@pytest.fixture(scope="module")
def found(opened):
    told = []
    one = demonstrate(opened, PLANTED, DemonstrationSizes(prompts=5, temperature=0.0), told.append)
    assert told
    return one


def test_a_planted_feature_works_on_prompts_that_did_not_choose_it(found):
    assert found.prompts == tuple(map(text_of, PLANTED.test[:5]))
    assert sum(found.worked) >= 2
    assert found.share.value == sum(found.worked) / 5
    assert found.judged.setting == found.choice.setting
    for worked, now, before in zip(found.worked, found.judged.texts, found.plain.texts, strict=True):
        assert worked == (PLANTED.judgement.holds(now) and not PLANTED.judgement.holds(before))


def test_every_setting_stands_on_the_slider(opened, found):
    assert tuple(answers.setting for answers in found.slider) == PLANTED.settings
    assert found.plain.setting is None
    assert found.plain.distance.kl == 0
    strong = found.slider[-1]
    assert strong.distance.kl > found.slider[0].distance.kl > 0
    writer = Writer(opened, PLANTED.new, temperature=0.0, seed=0)
    clamp = strong.setting.clamp(found.choice.chosen.feature)
    again = writer.write(PLANTED.test[:5], [(clamp,)])[0]
    assert tuple(one.text for one in again) == strong.texts, "samples are what was written"


def test_the_subject_names_the_pair(opened):
    said = DemonstrationSizes(prompts=5, seed=3).subject(opened)
    assert opened.dictionary.digest[:19] in said
    assert "At most 5 prompts each, temperature 0.7, seed 3." in said
