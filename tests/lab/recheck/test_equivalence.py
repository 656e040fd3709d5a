"""Tests of equivalence: what counts as the same, as moved, and as unknown, and how often they are wrong."""

import numpy as np
import pytest

from monitor.lab.recheck.equivalence import (
    Estimate,
    Sameness,
    change_of_shares,
    drawn,
    independent,
    more_for_draws,
    more_texts,
    no_fall,
    no_rise,
    share,
    within,
)

SAME, MOVED, UNKNOWN = Sameness.SAME, Sameness.MOVED, Sameness.UNKNOWN


@pytest.mark.parametrize(
    ("low", "high", "both", "rise", "fall"),
    [
        (-0.04, 0.04, SAME, SAME, SAME),
        (0.01, 0.04, SAME, SAME, SAME),
        (0.01, 0.09, MOVED, MOVED, SAME),
        (0.06, 0.09, MOVED, MOVED, SAME),
        (-0.09, -0.01, MOVED, SAME, MOVED),
        (-0.01, 0.09, UNKNOWN, UNKNOWN, SAME),
        (-0.09, 0.09, UNKNOWN, UNKNOWN, UNKNOWN),
    ],
)
def test_the_interval_decides_and_not_its_middle(low, high, both, rise, fall):
    change = Estimate((low + high) / 2, low, high)
    assert within(change, 0.05) is both
    assert no_rise(change, 0.05) is rise
    assert no_fall(change, 0.05) is fall


def test_a_share_has_an_exact_interval():
    none, some, everything = share(0, 60), share(30, 60), share(60, 60)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(1 - 0.05 ** (1 / 60))
    assert (everything.low, everything.high) == (pytest.approx(0.05 ** (1 / 60)), 1.0)
    assert some.low < 0.5 < some.high
    assert share(0, 0) == Estimate(0.0, 0.0, 1.0)


def test_no_flip_is_no_proof_with_few_texts():
    assert within(change_of_shares(0, 0, 10), 0.1) is UNKNOWN
    assert within(change_of_shares(0, 0, 60), 0.1) is SAME
    assert within(change_of_shares(20, 0, 60), 0.1) is MOVED


@pytest.mark.parametrize("up", [0.0, 0.05, 0.2])
def test_the_interval_of_a_change_holds_the_truth_as_often_as_it_says(up):
    rng = np.random.default_rng(1)
    down, held = 0.1, 0
    for gained, lost, _ in rng.multinomial(80, [up, down, 1 - up - down], 600):
        change = change_of_shares(gained, lost, 80)
        held += change.low <= up - down <= change.high
    assert held / 600 > 0.87


def test_what_lies_on_the_margin_is_seldom_called_the_same():
    """The error that matters: of rules that catch exactly ten points less, about one in twenty may pass."""
    rng = np.random.default_rng(2)
    drawn_changes = rng.multinomial(80, [0.05, 0.15, 0.8], 1000)
    passed = sum(within(change_of_shares(up, down, 80), 0.1) is SAME for up, down, _ in drawn_changes)
    assert passed / 1000 < 0.06


def test_resamples_give_an_interval_that_holds_the_value():
    draws = np.linspace(0, 1, 101)
    assert drawn(0.5, draws) == Estimate(0.5, pytest.approx(0.05), pytest.approx(0.95))
    assert drawn(2.0, draws).high == 2.0
    assert independent(np.asarray([3, 3, 1, 3])) == 2


def test_as_many_more_texts_as_are_said_decide():
    def decides(times):
        return within(change_of_shares(2 * times, times, 30 * times), 0.1)

    more = more_texts(30, decides)
    assert more is not None
    assert more > 30
    assert decides(1) is UNKNOWN
    assert decides((30 + more) / 30) is SAME
    assert more_texts(100, lambda times: SAME) == 0
    assert more_texts(100, lambda times: UNKNOWN) is None


def test_an_interval_narrows_with_the_root_of_the_number():
    change = Estimate(0.0, -0.2, 0.2)
    more = more_for_draws(50, change, lambda narrowed: within(narrowed, 0.1))
    assert more == pytest.approx(150, abs=12)
    assert more_for_draws(50, Estimate(0.0, -0.01, 0.01), lambda one: within(one, 0.1)) == 0
