"""Cross-validation: no group is split, everything measured is scored once, and by a detector that never saw it."""

import numpy as np
import pytest

from monitor.policy.fit.choice import DetectorChoice
from monitor.policy.fit.cross_validation import AGGREGATES, ALL, FOLDS, cross_validate, folds, scale_of
from monitor.policy.fit.detectors import Recipe, learn
from monitor.policy.fit.feature_selection import SIZES
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.rows import LabelledTexts, ReadTexts, read_rows
from monitor.policy.schema.policy import Max, TopKMean
from tests.policy.synthetic import CAUSAL, CONCEPT, Synthetic, examples


@pytest.fixture(scope="module")
def rows():
    reader = Synthetic()
    benign = [f"benign {i}" for i in range(40)]
    extra = LabelledTexts([f"yes {i}" for i in range(90, 94)], [True] * 4, list("abab"))
    return read_rows(reader, examples(20), ReadTexts(benign, reader.read(benign)), extra)


RECIPE = Recipe((RulePooling(TopKMean(k=3)), RulePooling(Max())), 4, 0, signed=True)


@pytest.fixture(scope="module")
def found(rows):
    return cross_validate(rows, RECIPE)


def test_folds_are_parts_of_whole_groups(rows):
    parts = folds(rows, 3)
    assert len(parts) == FOLDS
    everything = np.concatenate(parts)
    assert sorted(everything.tolist()) == np.flatnonzero(rows.measured == 1).tolist()
    where = {int(row): number for number, part in enumerate(parts) for row in part}
    for group in np.unique(rows.groups[everything]):
        assert len({where[int(row)] for row in everything if rows.groups[row] == group}) == 1
    for part in parts:
        own = rows.own[part] == 1
        assert 4 <= len(np.unique(rows.groups[part][own])) <= 13
        assert (~own).sum() == 40 // FOLDS, "benign texts are spread evenly"
    assert [part.tolist() for part in folds(rows, 3)] == [part.tolist() for part in parts]
    assert [part.tolist() for part in folds(rows, 4)] != [part.tolist() for part in parts]


def test_the_scale_is_that_of_the_negatives(rows):
    detector, how = learn(rows, rows.everything, RECIPE, RECIPE.sizes).features[4], RECIPE.poolings[0]
    which = np.arange(0, len(rows.texts), 2)
    negatives = which[rows.positive[which] == 0]
    scores = how.score(detector.tokens(rows.read, negatives))
    assert scale_of(detector, how, rows, which) == pytest.approx((scores.mean(), scores.std()), rel=1e-6)


def test_everything_measured_is_scored_by_detectors_that_did_not_learn_it(rows, found):
    extra = rows.measured == 0
    for scores in found.rules:
        assert np.isneginf(scores.best[extra]).all()
        assert np.isfinite(scores.best[~extra].max(1)).all()
    learnt = {"policy", "features", "probe", "combined"}
    baselines = {"linear_probe", "difference_of_means", "bag_of_words", "random_features"}
    assert set(found.methods) == learnt | baselines
    assert set(found.sizes) == {*map(str, SIZES), ALL}
    assert set(found.aggregates) == set(AGGREGATES)
    for name, scores in {**found.methods, **found.sizes, **found.aggregates}.items():
        assert np.isnan(scores[extra]).all(), name
        assert np.isfinite(scores[~extra]).all(), name
    best = found.rules[0].best.max(1)
    assert best[rows.own_positive].mean() > best[rows.benign].mean() + 1
    held = folds(rows, RECIPE.seed)[0]
    rest = np.setdiff1d(rows.everything, held)
    detector, how = learn(rows, rest, RECIPE, RECIPE.sizes).detector(found.choice), RECIPE.poolings[0]
    middle, spread = scale_of(detector, how, rows, rest)
    expected = (how.score(detector.tokens(rows.read, held)) - middle) / spread
    np.testing.assert_allclose(best[held], expected, rtol=1e-6)


def test_features_of_the_concept_are_stable(found):
    assert max(found.stability.values()) == 1
    assert {feature for feature, share in found.stability.items() if share > 0.5} <= {*CONCEPT, CAUSAL}


def test_what_has_no_part_in_a_choice_measures_it(rows, monkeypatch):
    """The choice for a fold is made by scores of the other folds, from models that learnt without both."""
    asked = []

    def spied(judge, scores, sizes, kind):
        asked.append(len(scores(DetectorChoice("features", 4))))
        return DetectorChoice("features", 4)

    monkeypatch.setattr("monitor.policy.fit.cross_validation.choose", spied)
    found = cross_validate(rows, RECIPE)
    measured, parts = int((rows.measured == 1).sum()), folds(rows, RECIPE.seed)
    assert asked == [*(measured - len(part) for part in parts), measured]
    np.testing.assert_allclose(found.methods["policy"], found.methods["features"], equal_nan=True)
