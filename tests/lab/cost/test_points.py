import numpy as np
import pytest

from monitor.lab.cost.points import difference, share


def test_wilsons_interval():
    found = share(np.asarray([True] * 10 + [False] * 30))
    assert (found.value, found.trials) == (0.25, 40)
    assert (round(found.low, 4), round(found.high, 4)) == (0.1419, 0.4019)
    assert share(np.zeros(20, bool)).low == 0


def test_a_paired_difference_knows_that_pairs_agree():
    before = np.asarray([True, False] * 50)
    same = difference(before, before)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    now = before.copy()
    now[:40] = False
    fell = difference(now, before)
    assert fell.value == pytest.approx(-0.2)
    assert fell.low < -0.2 < fell.high < 0
