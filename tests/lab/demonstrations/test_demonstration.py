"""What a demonstration is made of."""

from monitor.lab.demonstrations.demonstration import DEVELOPMENT, ClampSetting, answered, asked, text_of
from monitor.records import Clamp, Where
from tests.lab.demonstrations.planted import PLANTED


def test_development_prompts_measure_nothing():
    assert len(PLANTED.development) == DEVELOPMENT
    assert not [prompt for prompt in PLANTED.test if prompt in PLANTED.development]
    assert (*PLANTED.development, *PLANTED.test) == PLANTED.prompts


def test_amplifying_holds_everywhere_and_taking_away_is_tried_both_ways():
    both = ClampSetting(-1.0, Where.ACTIVE), ClampSetting(-1.0, Where.EVERYWHERE)
    down = type(PLANTED)(**{**vars(PLANTED), "targets": (-1.0, 0.5)})
    assert down.settings == (*both, ClampSetting(0.5, Where.EVERYWHERE))
    assert both[0].clamp(7) == Clamp(7, -1.0, Where.ACTIVE)
    assert [str(setting) for setting in down.settings] == [
        "-1 × maximum, where active",
        "-1 × maximum, every token",
        "0.5 × maximum, every token",
    ]


def test_turns_as_text():
    assert text_of("a") == "a"
    assert text_of(asked("a")) == "a"
    assert text_of(answered("a", "b")) == "a\nb"
