"""Labelled readings: rows that are chosen are chosen in every field."""

import numpy as np
import pytest

from tests.dictionary.evaluation.labelled_readings import made_readings


@pytest.mark.parametrize("mask", [False, True])
def test_every_field_has_the_chosen_rows(mask):
    found = made_readings(12, 0, groups=3)
    rows = np.array([1, 4, 5, 11])
    chosen = found.select(np.isin(np.arange(12), rows) if mask else rows)
    assert len(chosen) == 4
    assert chosen.texts == tuple(found.texts[row] for row in rows)
    assert chosen.replies == tuple(found.replies[row] for row in rows)
    for name in ("labels", "units", "maximum", "mean", "residual"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(found, name)[rows], err_msg=name)


def test_order_and_repetitions_are_kept():
    found = made_readings(6, 1)
    chosen = found.select(np.array([5, 0, 5]))
    assert chosen.texts == (found.texts[5], found.texts[0], found.texts[5])
    np.testing.assert_array_equal(chosen.maximum, found.maximum[[5, 0, 5]])


def test_no_rows():
    found = made_readings(6, 1)
    chosen = found.select(np.zeros(6, dtype=bool))
    assert (len(chosen), chosen.texts) == (0, ())
    assert chosen.residual.shape == (0, found.residual.shape[1])
