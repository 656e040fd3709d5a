import pytest
from rich.console import Console

from monitor.cli.shade import LEVELS, Painter, RuleFeatures
from monitor.v1 import monitor_pb2 as pb

RULES = RuleFeatures(frozenset({1, 2}))


def token(position, text, phase=pb.PHASE_PROMPT, **readings):
    found = [pb.Reading(feature=int(name[1:]), value=value) for name, value in readings.items()]
    return pb.ScoredToken(position=position, text=text, phase=phase, readings=found)


def test_strength_is_the_strongest_feature_that_a_rule_reads():
    assert RULES.strength(token(3, "x", f1=0.25, f2=0.5, f9=2.0)) == 0.5
    assert RULES.strength(token(3, "x", f9=2.0)) == 0.0


def test_the_start_token_is_never_shaded():
    assert RULES.strength(token(0, "<s>", f1=30.0)) == 0.0


def test_what_a_clamp_left_is_shown_where_asked_for():
    clamped = pb.Reading(feature=1, value=0.75, value_after_clamp=0.0)
    edited = pb.ScoredToken(position=1, readings=[clamped, pb.Reading(feature=2, value=0.25)])
    assert RULES.strength(edited) == 0.75
    assert RuleFeatures(RULES.features, after_clamp=True).strength(edited) == 0.25


def test_features_come_from_every_rule_of_every_policy():
    rules = [pb.Rule(features=[1, 5]), pb.Rule(features=[5, 7])]
    policies = [
        pb.Policy(rules=rules, clamps=[pb.Clamp(feature=99)]),
        pb.Policy(rules=[pb.Rule(features=[2])]),
    ]
    assert RuleFeatures.of(policies).features == {1, 2, 5, 7}


def test_colours_follow_the_reading():
    painter = Painter(RULES, colour=True)
    values = [0.0, *(low for low, _ in LEVELS), 3.0]
    styles = [str(painter.piece("x", value, 1).style) for value in values]
    assert styles == ["", *(style for _, style in LEVELS), LEVELS[-1][1]]


def test_both_colours_are_set_so_that_any_terminal_can_be_read():
    for _, style in LEVELS:
        text = Painter(RULES, colour=True).piece("x", 1.0)
        console = Console(color_system="truecolor", force_terminal=True)
        assert console.get_style(style).color is not None
        assert console.get_style(style).bgcolor is not None
        assert text.plain == "x"


def test_evidence_is_underlined_whatever_its_reading():
    detection = pb.Detection(evidence=[pb.Evidence(position=2)])
    painter = Painter(RULES, colour=True).with_evidence([detection])
    assert "underline" in str(painter.piece("x", 0.0, 2).style)
    assert "underline" not in str(painter.piece("x", 0.9, 3).style)


def test_without_colours_strong_tokens_and_evidence_are_marked():
    painter = Painter(RULES, colour=False).with_evidence([pb.Detection(evidence=[pb.Evidence(position=3)])])
    tokens = [
        token(0, "<s>", f1=9),
        token(1, " take", f1=0.39),
        token(2, " control", f1=0.95),
        token(3, " now", f2=0.1),
    ]
    assert painter.tokens(tokens).plain == "<s> take [control=0.95] [now=0.10]"


def test_the_models_own_text_is_set_off():
    tokens = [token(1, "Hi"), token(2, " there", pb.PHASE_RESPONSE), token(3, "!", pb.PHASE_RESPONSE)]
    assert Painter(RULES, colour=True).tokens(tokens).plain == "Hi ▌ there!"


@pytest.mark.parametrize("colour", [True, False])
def test_no_token_is_markup_or_a_command(colour):
    shown = Painter(RULES, colour).tokens([token(1, "[bold]\x1b[31m")]).plain
    assert shown == "[bold]\\x1b[31m"
