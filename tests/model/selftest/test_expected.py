import math
from dataclasses import replace

import pytest

from monitor.dictionary.formats.card import DictionaryCard
from monitor.model.selftest.expected import (
    BOUNDS,
    Bounds,
    Expected,
    ExpectedSource,
    compare,
    distance,
    expected_of,
    far,
)
from monitor.model.selftest.result import CHECKS
from tests.model.selftest.numbers import FOUND, RECORD

HERE = expected_of(DictionaryCard(), RECORD, "float32")
ELSEWHERE = expected_of(DictionaryCard(), RECORD, "bfloat16")
DECLARED = expected_of(DictionaryCard(l0=30.0, explained_variance=0.8), None, "float32")


def off(name, found, expected=HERE):
    return {line.name: line.off for line in compare(found, expected)}[name]


def test_a_record_is_expected_number_by_number_and_before_what_is_declared():
    found = expected_of(DictionaryCard(l0=99.0, explained_variance=0.1), RECORD, "float32")
    assert (found.l0, found.explained_variance, found.early_l0) == (30.0, 0.8, 31.0)
    assert (found.early_explained_variance, found.norm, found.outliers) == (0.7, 25.0, 0.0)
    assert found.place == RECORD.place


@pytest.mark.parametrize(
    ("card", "source"),
    [
        (DictionaryCard(l0=40.0), ExpectedSource.DECLARED),
        (DictionaryCard(explained_variance=0.9), ExpectedSource.DECLARED),
        (DictionaryCard(), ExpectedSource.NONE),
    ],
)
def test_without_a_record_the_card_says_what_it_knows(card, source):
    found = expected_of(card, None, "float32")
    assert (found.source, found.l0, found.explained_variance) == (source, card.l0, card.explained_variance)
    assert (found.early_l0, found.norm, found.place) == (None, None, None)


def test_bounds_widen_with_the_distance_of_the_source():
    ratios = [BOUNDS[source].ratio for source in ExpectedSource]
    differences = [BOUNDS[source].variance for source in ExpectedSource]
    assert ratios == sorted(ratios)
    assert differences == sorted(differences)
    assert ELSEWHERE.bounds is BOUNDS[ExpectedSource.RECORDED_ELSEWHERE]


@pytest.mark.parametrize("expected", [HERE, ELSEWHERE, DECLARED], ids=lambda one: one.source.value)
@pytest.mark.parametrize("direction", [1, -1])
def test_a_ratio_may_be_off_by_its_factor_either_way(expected, direction):
    bound = expected.bounds.ratio
    assert off("L0", replace(FOUND, l0=30.0 * bound**direction), expected) == pytest.approx(1)
    assert off("L0", replace(FOUND, l0=30.0 * bound ** (2 * direction)), expected) == pytest.approx(2)
    assert off("L0", FOUND, expected) == 0


@pytest.mark.parametrize("direction", [1, -1])
def test_a_difference_is_measured_in_what_is_allowed(direction):
    bound = HERE.bounds.variance
    found = replace(FOUND, explained_variance=0.8 + 3 * bound * direction)
    assert off("explained variance", found) == pytest.approx(3)


def test_each_number_belongs_to_a_check_and_says_what_is_allowed():
    lines = {line.name: line for line in compare(FOUND, HERE)}
    assert {line.check for line in lines.values()} <= set(CHECKS)
    assert lines["L0"].allowed == "29.1 to 30.9"
    assert lines["explained variance"].allowed == "0.792 to 0.808"
    assert (lines["median norm"].measured, lines["median norm"].expected) == (25.0, 25.0)
    assert {name for name, line in lines.items() if line.check == "bos"} == {
        "L0, first tokens",
        "explained variance, first tokens",
    }


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["l0", "early_explained_variance", "norm", "outliers", "early_l0"])
def test_what_is_no_number_never_passes(field, value):
    assert distance(compare(replace(FOUND, **{field: value}), HERE)) == math.inf


def test_numbers_of_which_nothing_is_known_do_not_count():
    wrong = replace(FOUND, early_l0=1e6, norm=1e6, outliers=0.9)
    assert distance(compare(wrong, DECLARED)) == 0
    assert distance(compare(replace(wrong, l0=1e6), Expected(ExpectedSource.NONE))) == 0
    assert distance(()) == 0


def test_of_a_sample_l0_may_be_further_off_and_no_variance_is_compared():
    sample = replace(FOUND, explained_variance=math.nan, early_explained_variance=math.nan, l0=30.0 * 1.45)
    lines = compare(sample, HERE)
    assert [line.name for line in lines] == ["L0", "median norm", "norm outliers"]
    assert distance(lines) < 1
    assert distance(compare(replace(sample, l0=30.0 * 1.55), HERE)) > 1


def test_bounds_of_the_callers_go_before_those_of_the_source():
    found = replace(FOUND, l0=45.0)
    assert distance(compare(found, DECLARED)) < 1
    assert distance(compare(found, DECLARED, Bounds(1.2, 0.05))) > 1


def test_ranking_takes_declared_values_more_exactly_than_the_test_does():
    found = replace(FOUND, l0=45.0)
    assert distance(compare(found, DECLARED)) < 1 < far(found, DECLARED)
    assert far(replace(FOUND, l0=30.0 * 1.25), DECLARED) == pytest.approx(1)
    slightly = replace(FOUND, l0=30.5)
    assert far(slightly, HERE) == distance(compare(slightly, HERE))
