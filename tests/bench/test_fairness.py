"""The checks of the fairness measurement, on known numbers."""

import pytest

from monitor.bench.fairness import MixedLoad, judge


def part(scorers, streams, scores=(), tokens=0):
    return MixedLoad(scorers, streams, list(scores), tokens, seconds=10.0)


def measured(beside=0.04, left=250):
    alone = [part(1, 0, [0.02] * 100), part(32, 0, [0.3] * 100), part(0, 16, tokens=1000)]
    return [[*alone, part(1, 16, [beside] * 100, 900), part(32, 16, [0.6] * 100, left)]] * 3


def test_ratios_are_taken_within_a_round(capsys):
    checks = judge(measured(), slower=3, least=0.2)
    assert list(checks.values()) == [True, True]
    slower, left = checks
    assert "2.00 (2.00 … 2.00) times beside 16 generations" in slower
    assert left.startswith("0.25 (0.25 … 0.25) of the generation's speed")
    assert "generated   100.0 tokens/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("numbers", "held"), [({"beside": 0.5}, [False, True]), ({"left": 100}, [True, False])]
)
def test_whoever_starves_is_said(numbers, held):
    assert list(judge(measured(**numbers), slower=3, least=0.2).values()) == held


def test_a_part_without_a_score_took_for_ever():
    assert part(1, 0).quantile(0.99) == float("inf")
