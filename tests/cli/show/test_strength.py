"""How strong a token is."""

import pytest

from monitor.cli.show.strength import READING_SCALE, RULE_SCALE, FeatureReadings, RuleScores, left
from monitor.v1 import monitor_pb2 as pb

READS = pb.Rule(features=[1, 2], weights=[2.0, -1.0], threshold=0.5)
HEARS = pb.Rule(features=[3], weights=[1.0], threshold=1.0, phases=[pb.PHASE_RESPONSE])
SCORES = RuleScores.of([pb.Policy(rules=[READS]), pb.Policy(rules=[HEARS], clamps=[pb.Clamp(feature=9)])])


def token(position=3, phase=pb.PHASE_PROMPT, **readings):
    found = [pb.Reading(feature=int(name[1:]), value=value) for name, value in readings.items()]
    return pb.ScoredToken(position=position, text="x", phase=phase, readings=found)


def test_a_score_is_weight_times_reading_by_the_threshold():
    assert SCORES.strength(token(f1=0.5, f2=0.25)) == pytest.approx((2 * 0.5 - 0.25) / 0.5)


def test_a_rule_counts_only_where_it_reads():
    assert SCORES.strength(token(f3=2.0)) == 0.0
    assert SCORES.strength(token(f3=2.0, phase=pb.PHASE_RESPONSE)) == 2.0


def test_the_strongest_rule_counts():
    assert SCORES.strength(token(f1=0.5, f3=7.0, phase=pb.PHASE_RESPONSE)) == 7.0


def test_what_speaks_against_it_is_not_shown_as_strength():
    assert SCORES.strength(token(f2=1.0)) == 0.0


def test_the_start_token_and_features_that_are_only_clamped_count_nothing():
    assert SCORES.strength(token(position=0, f1=30.0)) == 0.0
    assert SCORES.strength(token(f9=30.0)) == 0.0


def test_a_threshold_that_is_not_positive_gives_no_share():
    scores = RuleScores.of([pb.Policy(rules=[pb.Rule(features=[1], weights=[1.0], threshold=0.0)])])
    assert scores.strength(token(f1=1.0)) == 0.0
    assert RuleScores.of([]).strength(token(f1=1.0)) == 0.0


def test_readings_are_shown_as_clamps_left_them():
    clamped = pb.Reading(feature=1, value=0.75, value_after_clamp=0.0)
    assert left(clamped) == 0.0
    assert left(pb.Reading(feature=1, value=0.75)) == 0.75
    edited = pb.ScoredToken(position=1, readings=[clamped, pb.Reading(feature=2, value=0.25)])
    assert FeatureReadings(frozenset({1, 2})).strength(edited) == 0.25
    assert FeatureReadings(frozenset({1})).strength(edited) == 0.0
    assert FeatureReadings(frozenset({1})).strength(token(position=0, f1=9.0)) == 0.0


@pytest.mark.parametrize("scale", [RULE_SCALE, READING_SCALE])
def test_levels_rise(scale):
    assert list(scale.levels) == sorted(set(scale.levels))
    assert scale.strong in scale.levels
