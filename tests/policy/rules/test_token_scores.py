"""Scores of single tokens as shares of thresholds."""

import numpy as np
import pytest

from monitor.policy.policy import Condition, WeightedFeature
from monitor.policy.rules.token_scores import TokenScores
from monitor.policy.schema.expression import AnyOf
from monitor.records import Phase, Probe
from tests.policy.conftest import policy, rule


def shares(one, rows, phase=Phase.PROMPT, before=0):
    return TokenScores((one,)).shares(np.asarray(rows, np.float32), phase, before)


def test_one_is_the_threshold_and_nothing_is_below_zero():
    one = policy(rule("a", threshold=0.5))
    assert shares(one, [[0.5], [1.0], [0.0], [-1.0]])[:, 0] == pytest.approx([1, 2, 0, 0])


def test_rules_count_in_their_phases_alone():
    one = policy(rule("a", phases=(Phase.PROMPT,)), rule("b", phases=(Phase.RESPONSE,)))
    assert (shares(one, [[1.0]]) > 0).tolist() == [[True, False]]
    assert (shares(one, [[1.0]], Phase.RESPONSE) > 0).tolist() == [[False, True]]


def test_thresholds_follow_the_length():
    one = policy(rule("a", threshold=2.0, lengths=((2, 1.0), (None, 2.0))))
    assert shares(one, [[1.0], [1.0], [1.0]])[:, 0] == pytest.approx([1, 1, 0.5])
    assert shares(one, [[1.0]], before=2)[:, 0] == pytest.approx([0.5])


def test_probes_are_read_from_their_own_column_also_with_thresholds_below_zero():
    probe = Probe("p", (1.0,))
    one = policy(rule("a", features=(), probe=probe, threshold=0.25))
    assert shares(one, [[0.5]])[:, 0] == pytest.approx([2])
    low = policy(rule("a", features=(), probe=probe, threshold=-1.0))
    assert shares(low, [[-1.0], [0.5], [-3.0]])[:, 0] == pytest.approx([1, 2.5, 0])


def test_of_conditions_the_nearest_counts():
    parts = tuple(
        Condition(name, features=(WeightedFeature(feature, 1.0),), threshold=limit)
        for name, feature, limit in (("x", 3, 1.0), ("y", 5, 0.5))
    )
    one = policy(rule("a", features=(), when=AnyOf(any=["x", "y"])), conditions=parts)
    found = TokenScores((one,))
    assert found.rules == [("p", "a")]
    assert found.watch.features == (3, 5)
    assert found.shares(np.asarray([[0.5, 0.5]], np.float32), Phase.PROMPT)[:, 0] == pytest.approx([1])
