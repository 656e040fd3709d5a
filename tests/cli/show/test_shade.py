"""Tokens as styled text."""

import pytest
from rich.console import Console

from monitor.cli.show.shade import EVIDENCE, STYLES, Painter
from monitor.cli.show.strength import FeatureReadings
from monitor.v1 import monitor_pb2 as pb

MEASURE = FeatureReadings(frozenset({1, 2}))
EVIDENT = [pb.Detection(evidence=[pb.Evidence(position=3)])]


def token(position, text, phase=pb.PHASE_PROMPT, **readings):
    found = [pb.Reading(feature=int(name[1:]), value=value) for name, value in readings.items()]
    return pb.ScoredToken(position=position, text=text, phase=phase, readings=found)


def test_colours_follow_the_scale():
    painter = Painter(MEASURE, colour=True)
    values = [0.0, *MEASURE.scale.levels, 3.0]
    assert [str(painter.piece("x", value, 1).style) for value in values] == ["", *STYLES, STYLES[-1]]


def test_both_colours_are_set_so_that_any_terminal_can_be_read():
    console = Console()
    for style in map(console.get_style, STYLES):
        assert contrast(style.color.get_truecolor(), style.bgcolor.get_truecolor()) > 4.5


def contrast(one, other):
    """Contrast ratio of the Web Content Accessibility Guidelines."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour):
    shares = [value / 255 for value in colour]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_evidence_is_underlined_whatever_its_strength():
    painter = Painter(MEASURE, colour=True).with_evidence(EVIDENT)
    assert str(painter.piece("x", 0.0, 3).style) == EVIDENCE
    assert str(painter.piece("x", 0.9, 3).style) == f"{STYLES[-1]} {EVIDENCE}"
    assert str(painter.piece("x", 0.9, 4).style) == STYLES[-1]


def test_without_colours_strong_tokens_and_evidence_are_marked():
    painter = Painter(MEASURE, colour=False).with_evidence(EVIDENT)
    tokens = [
        token(0, "<s>", f1=9),
        token(1, " take", f1=0.39),
        token(2, " control", f1=0.95),
        token(3, " now", f2=0.1),
    ]
    assert painter.tokens(tokens).plain == "<s> take [control=0.95] [now=0.10]"


def test_the_models_own_text_is_set_off():
    tokens = [token(1, "Hi"), token(2, " there", pb.PHASE_RESPONSE), token(3, "!", pb.PHASE_RESPONSE)]
    assert Painter(MEASURE, colour=True).tokens(tokens).plain == "Hi ▌ there!"


@pytest.mark.parametrize("colour", [True, False])
def test_no_token_is_markup_or_a_command(colour):
    assert Painter(MEASURE, colour).tokens([token(1, "[bold]\x1b[31m")]).plain == "[bold]\\x1b[31m"


def test_the_legend_says_what_the_numbers_are():
    assert (
        "0.1  0.25  0.4  0.6  0.8   of the feature's maximum" in Painter(MEASURE, colour=True).legend().plain
    )
    assert (
        Painter(MEASURE, colour=False)
        .legend()
        .plain.startswith("[token=reading]: 0.4 of the feature's maximum")
    )
