import pytest

from monitor.lab.cost.advice import advise, at_damage
from monitor.lab.cost.edits import DENSE, DETECTORS, DROPPED, NOTHING, OWN
from monitor.lab.cost.points import Point, Share


def point(way, strength, unsafe, low, high, kl, ratio, later=0.5):
    flat = Share(unsafe, unsafe, unsafe, 100)
    return Point(
        way, strength, 1.0, 0.5, 1.0, later, flat, Share(unsafe - 0.6, low, high, 100), kl, 9.0, ratio
    )


BEFORE = point(NOTHING, 0, 0.6, 0, 0, 0, 1)


def test_the_mildest_of_what_works_within_the_budget():
    points = [
        BEFORE,
        point(OWN, -0.5, 0.3, -0.4, -0.2, 0.1, 1.005),
        point(OWN, -1, 0.28, -0.42, -0.22, 0.2, 1.015),
        point(OWN, -2, 0.1, -0.6, -0.4, 0.5, 1.3),
        point(DENSE, 1, 0.5, -0.2, 0.0, 0.2, 1.02),
    ]
    advice = advise(points, 0.02)
    assert (advice.target, advice.drop) == (-0.5, False)
    assert "at equal KL, difference of means falls less far: to 55%" in advice.reasons
    assert f"{DETECTORS} was not measured at that KL" in advice.reasons


def test_without_error_term_where_only_that_works():
    points = [BEFORE, point(OWN, -1, 0.6, -0.1, 0.1, 0.1, 1), point(DROPPED, -1, 0.3, -0.4, -0.2, 0.1, 1)]
    advice = advise(points, 0.02)
    assert (advice.target, advice.drop) == (-1, True)


def test_none_where_nothing_can_be_told_from_chance():
    points = [BEFORE, point(OWN, -1, 0.55, -0.15, 0.05, 0.1, 1), point(DENSE, 4, 0.2, -0.5, -0.3, 0.1, 1)]
    advice = advise(points, 0.02)
    assert advice.target is None
    assert "do not rely on this suppression" in advice.reasons[0]
    assert any(reason.startswith(f"{DENSE} × 4 does") for reason in advice.reasons)


def test_a_probe_that_still_fires_is_said():
    points = [BEFORE, point(OWN, -1, 0.3, -0.4, -0.2, 0.1, 1, later=0.4)]
    assert any("still fires" in reason for reason in advise(points, 0.02).reasons)


def test_between_measured_points():
    points = [BEFORE, point(DENSE, 1, 0.4, 0, 0, 0.2, 1)]
    assert at_damage(points, DENSE, 0.1) == pytest.approx(0.5)
    assert at_damage(points, DENSE, 0.3) is None
