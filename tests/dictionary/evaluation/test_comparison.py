from __future__ import annotations

import numpy as np
import pytest

from monitor.dictionary.evaluation.baselines import difference_of_means, linear_probe, word_candidates
from monitor.dictionary.evaluation.comparison import DETECTORS, compare_detectors
from monitor.dictionary.evaluation.features import best_feature, dense_rule, sparse_rule
from monitor.dictionary.evaluation.selection import FittedDetector, best_of, folds
from tests.dictionary.evaluation.labelled_readings import made_readings


def test_every_detector_finds_what_was_planted_and_says_how():
    result = compare_detectors("power", "made", made_readings(300, 0), made_readings(200, 1), limit=8)
    values = {name: result.of(name).auroc for name in DETECTORS}
    assert all(0.7 < values[name].value < 1 for name in DETECTORS)
    assert all(interval.low < interval.value < interval.high for interval in values.values())
    assert values["sparse rule"].value > values["best feature"].value
    assert result.of("best feature").note.startswith(("#3,", "#7,"))
    assert 2 <= result.of("sparse rule").features <= 8
    assert (result.train_rows, result.test_rows, result.test_groups) == (300, 200, 200)


def test_the_dense_rule_reads_every_feature_that_is_active_often_enough():
    half = made_readings(200, 20)
    half.maximum[:, 30], half.mean[:, 30] = 0, 0
    half.maximum[:4, 31], half.maximum[4:, 31], half.mean[:, 31] = 1, 0, 0
    fitted = dense_rule(half, strength=0.01)
    assert fitted.features == half.maximum.shape[1] - 2
    test = made_readings(200, 21)
    assert np.allclose(fitted.score(_without(test, 30)), fitted.score(test))
    assert not np.allclose(fitted.score(_without(test, 29)), fitted.score(test))


def test_labels_drawn_by_lot_teach_nothing():
    draw = np.random.default_rng(5)
    train, test = made_readings(300, 2, telling=()), made_readings(300, 3, telling=())
    for half in (train, test):
        object.__setattr__(half, "labels", draw.random(300) < 0.5)
    result = compare_detectors("nothing", "made", train, test, limit=8)
    for item in result.measured:
        assert 0.35 < item.auroc.value < 0.65


def test_the_limit_holds_and_the_strongest_features_stay():
    half = made_readings(400, 4, telling=(3, 7, 11, 19, 23))
    fitted = sparse_rule(half, pools=("max", "mean"), strength=3.0, refit=0.1, limit=3)
    assert 1 <= fitted.features <= 3
    other = made_readings(300, 6, telling=(3, 7, 11, 19, 23))
    scores = fitted.score(other)
    moved = [
        feature
        for feature in range(other.maximum.shape[1])
        if not np.allclose(fitted.score(_without(other, feature)), scores)
    ]
    assert len(moved) == fitted.features
    assert set(moved) <= {3, 7, 11, 19, 23}


def _without(half, feature):
    changed = half.select(np.arange(len(half)))
    changed.maximum[:, feature] = 0
    changed.mean[:, feature] = 0
    return changed


def test_a_feature_that_marks_the_negatives_is_read_with_its_sign():
    half = made_readings(300, 7, telling=())
    half.maximum[:, 5] = np.where(half.labels, 0.0, 0.8)
    fitted = best_feature(half)
    assert fitted.note.startswith("#5 (absent)")
    assert fitted.score(half)[half.labels].min() > fitted.score(half)[~half.labels].max()


def test_difference_of_means_is_that():
    half = made_readings(100, 8)
    direction = half.residual[half.labels].astype(float).mean(0) - half.residual[~half.labels].astype(
        float
    ).mean(0)
    assert np.allclose(difference_of_means(half).score(half), half.residual @ direction, atol=1e-4)


def test_the_candidate_that_generalises_is_chosen():
    half = made_readings(200, 9)

    def remembers(seen):
        known = {tuple(row) for row in seen.residual[seen.labels]}
        return FittedDetector(
            lambda other: np.array([tuple(row) in known for row in other.residual], float), "memory"
        )

    def probe(seen):
        return linear_probe(seen, strength=0.01)

    assert best_of(half, [remembers, probe]) is probe


def test_folds_keep_groups_whole():
    half = made_readings(120, 10, groups=12)
    for fit, score in folds(half):
        assert not set(half.units[fit]) & set(half.units[score])
        assert len(fit) + len(score) == 120


def test_words_may_read_the_answer_alone_where_there_is_one():
    half = made_readings(50, 11)
    assert len(word_candidates(half)) == 4
    object.__setattr__(half, "replies", tuple(text[5:] for text in half.texts))
    candidates = word_candidates(half)
    assert len(candidates) == 8
    fitted = [candidate(half) for candidate in candidates]
    assert {item.note.rsplit(", ", 1)[1] for item in fitted} == {"text", "reply"}


def test_one_group_cannot_be_cross_validated():
    half = made_readings(30, 12, groups=2)
    object.__setattr__(half, "labels", half.units == 0)
    with pytest.raises(ValueError, match="more groups"):
        folds(half)
