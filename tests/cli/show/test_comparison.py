"""What clamps left of the features."""

import pytest

from monitor.cli.show.comparison import ClampComparison, edited
from monitor.v1 import monitor_pb2 as pb


def reading(feature, value, after=None):
    return pb.Reading(feature=feature, value=value, value_after_clamp=after)


def answer(*tokens):
    """Tokens by their readings; the first is the start token."""
    listed = [pb.ScoredToken(position=i, readings=readings) for i, readings in enumerate(tokens)]
    return pb.GenerateResponse(tokens=listed)


PLAIN = answer([reading(1, 50.0)], [reading(1, 0.6)], [reading(1, 0.8), reading(2, 0.4)])


def compare(clamped, *clamps):
    return ClampComparison(clamps, PLAIN, clamped)


def test_a_feature_is_judged_where_it_was_clamped():
    clamped = answer([reading(1, 50.0, 40.0)], [reading(1, 0.6, 0.02)], [reading(1, 0.0, 0.7)])
    (fall,) = compare(clamped, pb.Clamp(feature=1, target=-1)).falls
    assert (fall.before, fall.clamped, fall.elsewhere) == pytest.approx((0.8, 0.02, 0.7))
    assert fall.held


def test_a_clamp_everywhere_answers_for_every_token():
    clamped = answer([], [reading(1, 0.0, 0.7)])
    (fall,) = compare(clamped, pb.Clamp(feature=1, target=-1, where=pb.CLAMP_WHERE_EVERYWHERE)).falls
    assert not fall.held


def test_amplifying_answers_for_every_token_unless_told_otherwise():
    clamped = answer([], [reading(1, 0.0, 0.7)])
    for where, judged in ((pb.CLAMP_WHERE_UNSPECIFIED, 0.7), (pb.CLAMP_WHERE_ACTIVE, 0.0)):
        (fall,) = compare(clamped, pb.Clamp(feature=1, target=0.7, where=where)).falls
        assert fall.clamped == pytest.approx(judged)


@pytest.mark.parametrize(
    ("target", "after", "held"), [(-1, 0.1, False), (0.3, 0.32, True), (0.3, 0.4, False), (-1, 0, True)]
)
def test_at_most_the_target_and_never_below_zero(target, after, held):
    (fall,) = compare(answer([], [reading(1, 0.6, after)]), pb.Clamp(feature=1, target=target)).falls
    assert fall.held is held


def test_a_clamp_that_was_ignored_does_not_hold():
    (fall,) = compare(PLAIN, pb.Clamp(feature=1, target=-1)).falls
    assert not fall.held


def test_the_strongest_features_come_first():
    clamps = [pb.Clamp(feature=f, target=-1) for f in (3, 2, 1)]
    assert [fall.clamp.feature for fall in compare(PLAIN, *clamps).falls] == [1, 2, 3]


def test_all_features_together_per_token():
    clamped = answer([reading(1, 50.0)], [reading(1, 0.6, 0.1)], [reading(9, 3.0)])
    clamps = [pb.Clamp(feature=f, target=-1) for f in (1, 2)]
    assert compare(clamped, *clamps).per_token == pytest.approx(((0.6 + 0.8 + 0.4) / 2, 0.1 / 2))


def test_edited_tokens_are_counted_once():
    twice = [reading(1, 0.6, 0.0), reading(2, 0.6, 0.0)]
    assert edited(answer(twice, [reading(1, 0.3)], [reading(1, 0.3, 0.1)])) == 2
