"""One feature turned up through a server: how it is found, and what is expected of it."""

import io

import pytest
from rich.console import Console

from monitor.cli.demo.script import SCRIPT, DemoScript
from monitor.cli.demo.slider import (
    DemoSlider,
    SliderAnswers,
    highest_readings,
    slider_view,
    telling_features,
)
from monitor.v1 import monitor_pb2 as pb
from tests.cli.demo.demonstrated import SHORT, broken, demonstrate
from tests.cli.scripted import FILMS

SLIDER = DemoSlider("films", "What makes you happy?", targets=(0.5, 2.0))
WITH_SLIDER = DemoScript(SHORT.lines, SHORT.suppression, SLIDER)


def inspected(*readings):
    tokens = [
        pb.InspectedToken(position=i, features=[pb.Reading(feature=f, value=v) for f, v in token])
        for i, token in enumerate(readings)
    ]
    return pb.InspectResponse(tokens=tokens)


def test_the_first_token_of_a_text_does_not_count():
    found = highest_readings(inspected([(1, 90.0)], [(2, 0.5), (3, 0.1)], [(2, 0.25)]))
    assert found == {2: 0.5, 3: pytest.approx(0.1)}


def test_features_that_fire_on_one_side_come_first():
    about = [{1: 0.2, 2: 0.9, 3: 0.5}, {1: 0.2, 2: 0.9, 3: 0.1}, {1: 0.1, 3: 0.1}]
    other = [{2: 0.9}, {4: 0.9}, {}]
    assert telling_features(about, other, 9) == [3, 1, 2], "of equals that with the stronger readings"
    assert telling_features(about, other, 1) == [3]
    assert telling_features([{}], other, 3) == []


@pytest.mark.slow
def test_a_feature_is_found_and_turned_up():
    expectations, text = demonstrate(WITH_SLIDER)
    assert broken(expectations) == []
    assert f"feature {FILMS}, found by 16 texts" in text
    assert "✓ at 2      I watched a movie ." in text
    assert "✓ at 0.5    I watched a movie ." in text
    assert "requests, Inspect" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "claim"),
    [
        ("deaf", "a feature tells texts about films from others"),
        ("clamps_do_nothing", "a feature that is turned up edits tokens without being told which"),
        (
            "clamps_do_nothing",
            "turned up, the answer speaks of films, actors or the cinema; as it is, it does not",
        ),
    ],
)
def test_what_does_not_hold_is_said(fault, claim):
    expectations, _ = demonstrate(WITH_SLIDER, **{fault: True})
    assert claim in broken(expectations)


def test_the_question_chooses_no_feature():
    assert SCRIPT.slider is not None
    about = SCRIPT.slider.about()
    assert SCRIPT.slider.question != about.prompts[0][0]["content"]
    assert {"role": "user", "content": SCRIPT.slider.question} in [turns[0] for turns in about.test]


def test_texts_of_the_model_cannot_write_to_the_terminal():
    answers = tuple(pb.GenerateResponse(text=f"\x1b[31ma {word}") for word in ("dog", "cat", "movie"))
    console = Console(file=io.StringIO(), width=100)
    console.print(slider_view(SliderAnswers(SLIDER, 7, answers)))
    shown = console.file.getvalue()
    assert "\x1b[31m" not in shown
    assert shown.count("✓ at") == 1
