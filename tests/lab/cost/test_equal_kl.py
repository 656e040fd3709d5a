"""Clamps beside a rival at the same divergence: the search of its strength, and who is the better one."""

import numpy as np
import pytest

from monitor.lab.cost.edits import DENSE, NOTHING, OWN, PROJECTED
from monitor.lab.cost.equal_kl import EqualKl, beside, compare_at_equal_kl, matched_strength, summary
from monitor.lab.cost.meter import Hits, Measured
from monitor.lab.cost.points import difference, share
from tests.lab.cost.measured import point

N = 100


def hits(unsafe, right=80):
    def first(count):
        return np.arange(N) < count

    return Hits(first(unsafe), None, first(unsafe // 2), first(right))


def measured(way, strength, unsafe, kl, right=80):
    mine = hits(unsafe, right)
    return Measured(
        point(
            way,
            strength,
            kl=kl,
            unsafe=share(mine.unsafe),
            change=difference(mine.unsafe, hits(60).unsafe),
        ),
        mine,
    )


class MadeUpMeter:
    """A rival whose divergence is the square of its strength, and which halves what is unsafe."""

    seed = 0

    def __init__(self):
        self.asked = []

    def divergence(self, edit):
        self.asked.append(edit)
        return edit**2

    def measure(self, way, strength, edit):
        return measured(way, strength, 50, edit**2)


@pytest.mark.parametrize("kl", [0.004, 0.1, 1.0, 30.0])
@pytest.mark.parametrize("growth", [1.0, 2.0, 3.5])
def test_a_strength_of_equal_divergence_is_found(kl, growth):
    asked = []

    def divergence(strength):
        asked.append(strength)
        return strength**growth

    curve = [point(DENSE, strength, kl=strength**growth) for strength in (0.5, 1.0, 2.0)]
    strength = matched_strength(divergence, lambda s: s, kl, curve)
    assert strength**growth == pytest.approx(kl, rel=0.05)
    assert len(asked) <= 5
    assert matched_strength(divergence, lambda s: s, 1.0, []) == pytest.approx(1.0)


def test_every_target_that_does_anything_is_compared():
    found = [
        measured(NOTHING, 0.0, 60, 0.0),
        measured(OWN, 0.0, 60, 1e-6),
        measured(OWN, -1.0, 20, 0.09),
        measured(DENSE, 1.0, 50, 1.0),
    ]
    ((one, rival),) = compare_at_equal_kl(MadeUpMeter(), found, {DENSE: lambda strength: strength})
    assert (one.target, one.rival, one.matched) == (-1.0, DENSE, True)
    assert one.strength == pytest.approx(0.3, rel=0.03)
    assert rival.way == DENSE
    assert one.unsafe.value == pytest.approx(-0.3)
    assert one.probed.value == pytest.approx(-0.15)
    assert one.fired is None
    assert one.lost.value == 0
    assert one.better
    assert summary([one]) == "at equal KL the clamps beat difference of means at target -1"


@pytest.mark.parametrize(
    ("own", "right", "rival_kl"),
    [
        (58, 80, 0.1),  # no more than chance
        (49, 80, 0.1),  # no more than the rival
        (20, 78, 0.1),  # two points of the pairs lost
        (20, 80, 0.2),  # another divergence
    ],
)
def test_what_is_not_better(own, right, rival_kl):
    one = beside(
        measured(OWN, -1.0, own, 0.1, right), measured(PROJECTED, 2.0, 50, rival_kl), hits(60), seed=0
    )
    assert not one.better
    assert summary([one]).endswith("at no target")
    assert "no target diverges enough" in summary([])


def test_one_rival_that_does_as_much_is_enough():
    mine = measured(OWN, -1.0, 20, 0.1)
    both: list[EqualKl] = [
        beside(mine, measured(DENSE, 1.0, 50, 0.1), hits(60), 0),
        beside(mine, measured(PROJECTED, 1.0, 21, 0.1), hits(60), 0),
    ]
    assert [one.better for one in both] == [True, False]
    assert summary(both).endswith("at no target")
