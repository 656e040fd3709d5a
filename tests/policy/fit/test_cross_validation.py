"""Cross-validation: no group is split, everything measured is scored once, and by a detector that never saw it."""

import numpy as np
import pytest

from monitor.policy.fit.cross_validation import FOLDS, cross_validate, folds, scale_of
from monitor.policy.fit.detectors import Recipe, learn_features
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.rows import LabelledTexts, ReadTexts, read_rows
from monitor.policy.schema.policy import Max, TopKMean
from tests.policy.synthetic import Synthetic, examples


@pytest.fixture(scope="module")
def rows():
    reader = Synthetic()
    benign = [f"benign {i}" for i in range(40)]
    extra = LabelledTexts([f"yes {i}" for i in range(90, 94)], [True] * 4, list("abab"))
    return read_rows(reader, examples(20), ReadTexts(benign, reader.read(benign)), extra)


RECIPE = Recipe((RulePooling(TopKMean(k=3)), RulePooling(Max())), 6, 1, 0, signed=True)


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
    detector, how = learn_features(rows, rows.everything, RECIPE), RECIPE.poolings[0]
    which = np.arange(0, len(rows.texts), 2)
    negatives = which[rows.positive[which] == 0]
    scores = how.score(detector.tokens(rows.read, negatives))
    assert scale_of(detector, how, rows, which) == pytest.approx((scores.mean(), scores.std()), rel=1e-6)


def test_everything_measured_is_scored_by_detectors_that_did_not_learn_it(rows):
    found = cross_validate(rows, RECIPE)
    extra = rows.measured == 0
    for kind in ("features", "probe"):
        for scores in found.of(kind):
            assert np.isneginf(scores.best[extra]).all()
            assert np.isfinite(scores.best[~extra].max(1)).all()
    assert set(found.baselines) == {"linear_probe", "difference_of_means", "bag_of_words", "random_features"}
    for name, scores in found.baselines.items():
        assert np.isnan(scores[extra]).all(), name
        assert np.isfinite(scores[~extra]).all(), name
    best = found.of("features")[0].best.max(1)
    assert best[rows.own_positive].mean() > best[rows.benign].mean() + 1
    held = folds(rows, RECIPE.seed)[0]
    rest = np.setdiff1d(rows.everything, held)
    detector, how = learn_features(rows, rest, RECIPE), RECIPE.poolings[0]
    middle, spread = scale_of(detector, how, rows, rest)
    expected = (how.score(detector.tokens(rows.read, held)) - middle) / spread
    np.testing.assert_allclose(best[held], expected, rtol=1e-6)
