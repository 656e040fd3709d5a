"""Sparse weights against a product with a table of all of them."""

import numpy as np
import pytest

from monitor.policy.policy import WeightedFeature
from monitor.policy.policyset import PolicySet
from monitor.policy.rules.explain import explain
from monitor.policy.rules.weights import active, spread
from monitor.records import Phase, Probe, Signal
from tests.policy.conftest import policy, rule


def readings_of(rng, rows, width, share=0.3):
    return (rng.normal(size=(rows, width)) * (rng.random((rows, width)) < share)).astype(np.float32)


@pytest.mark.parametrize(("rows", "width"), [(1, 1), (1, 7), (5, 8), (17, 33), (2, 0), (0, 4), (0, 0)])
def test_active_readings_are_those_that_are_not_zero(rows, width):
    readings = readings_of(np.random.default_rng(rows + width), rows, width)
    found = active(readings)
    row, column = np.nonzero(readings)
    assert len(found) == rows
    np.testing.assert_array_equal(found.columns, column)
    np.testing.assert_array_equal(found.values, readings[row, column])
    np.testing.assert_array_equal(found.counts, (readings != 0).sum(axis=1))
    assert (found.starts[0], found.starts[-1]) == (0, len(column))


def test_nan_is_active_and_minus_zero_is_not():
    found = active(np.asarray([[np.nan, -0.0, 1e-45, 0.0]], np.float32))
    assert found.columns.tolist() == [0, 2]
    assert np.isnan(found.values[0])


def test_readings_need_not_lie_in_a_row_in_memory():
    readings = readings_of(np.random.default_rng(3), 12, 10)
    for view in (readings[::2], readings[:, 3:8], readings.T):
        found, plain = active(view), np.nonzero(view)
        np.testing.assert_array_equal(found.columns, plain[1])
        np.testing.assert_array_equal(found.values, view[plain])


def test_large_blocks_are_looked_at_in_parts():
    readings = readings_of(np.random.default_rng(5), 1500, 700, 0.002)
    found = active(readings)
    row, column = np.nonzero(readings)
    np.testing.assert_array_equal(found.columns, column)
    np.testing.assert_array_equal(found.values, readings[row, column])
    np.testing.assert_array_equal(np.repeat(np.arange(1500), found.counts), row)


@pytest.mark.parametrize("rows", [[2], [1, 2, 3], [0, 2, 4], [4, 0, 0], []])
def test_some_rows_keep_what_was_read_of_them(rows):
    readings = readings_of(np.random.default_rng(7), 5, 9, 0.5)
    some, alone = active(readings).some(np.asarray(rows, np.intp)), active(readings[rows])
    for name in ("starts", "columns", "values"):
        np.testing.assert_array_equal(getattr(some, name), getattr(alone, name))


def test_numbers_are_spread_from_each_first():
    found = spread(np.asarray([10, 0, 7]), np.asarray([3, 0, 2]))
    assert found.tolist() == [10, 11, 12, 7, 8]
    assert spread(np.zeros(0, np.intp), np.zeros(0, np.intp)).tolist() == []


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_weight_times_reading_summed(seed):
    rng = np.random.default_rng(seed)
    probe, signal = Probe("p/p", (1.0, 0.5)), next(iter(Signal))
    chosen = [rng.choice(12, size=int(rng.integers(1, 8)), replace=False) for _ in range(6)]
    rules = [
        rule(f"r{i}", features=[(int(f), float(rng.normal())) for f in own]) for i, own in enumerate(chosen)
    ]
    rules += [rule("p", features=(), probe=probe), rule("s", features=(), signal=signal)]
    one = policy(*rules)
    watch = PolicySet((one,), "").watch
    table = np.zeros((len(watch), len(rules)))
    for i, own in enumerate(rules):
        for feature in own.features:
            table[watch.column(feature.index), i] += feature.weight
        for other in (own.probe, own.signal):
            if other is not None:
                table[watch.column(other), i] = 1.0
    readings = readings_of(rng, 10, len(watch), 0.6)
    for row in readings:
        told = explain((one,), np.stack([row, row]), Phase.PROMPT)
        scores = {each.rule.name: each.score for each in told}
        wanted = row.astype(np.float64) @ table
        np.testing.assert_allclose([scores[own.name] for own in rules], wanted, rtol=1e-12, atol=1e-12)


def test_a_feature_that_is_written_twice_counts_with_both_weights():
    one = policy(rule(features=((3, 1.0), (3, 0.5), (4, 1.0))))
    (told,) = explain((one,), np.asarray([[0, 0], [2.0, 1.0]], np.float32), Phase.PROMPT)
    assert told.score == pytest.approx(4.0)


def test_features_that_explain_a_probe_are_named_and_not_counted():
    probe = Probe("p", (1.0,))
    told = tuple(WeightedFeature(index, weight) for index, weight in ((3, 2.0), (4, 1.0), (5, -4.0)))
    one = policy(rule("probed", features=(), probe=probe, explains=told), rule("read", features=((4, 1.0),)))
    watch = PolicySet((one,), "").watch
    assert watch.features == (3, 4, 5)
    row = np.asarray([0.5, 0.75, 1.0, 2.0], np.float32)
    probed, read = explain((one,), np.stack([row, row]), Phase.PROMPT)
    assert (probed.score, read.score) == (2.0, 0.75)
    (token,) = probed.tokens
    assert [(r.feature, r.reading) for r in token.features] == [(3, 0.5), (4, 0.75)], "5 speaks against it"
    (other,) = read.tokens
    assert [r.feature for r in other.features] == [4]
