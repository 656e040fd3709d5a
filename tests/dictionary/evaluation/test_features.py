from __future__ import annotations

import numpy as np

from monitor.dictionary.evaluation.features import best_feature, dense_rule, sparse_rule
from tests.dictionary.evaluation.labelled_readings import made_readings


def test_the_dense_rule_reads_every_feature_that_is_active_often_enough():
    readings = made_readings(200, 20)
    readings.maximum[:, 30], readings.mean[:, 30] = 0, 0
    readings.maximum[:4, 31], readings.maximum[4:, 31], readings.mean[:, 31] = 1, 0, 0
    fitted = dense_rule(readings, strength=0.01)
    assert fitted.features == readings.maximum.shape[1] - 2
    test = made_readings(200, 21)
    assert np.allclose(fitted.score(_without(test, 30)), fitted.score(test))
    assert not np.allclose(fitted.score(_without(test, 29)), fitted.score(test))


def test_the_limit_holds_and_the_strongest_features_stay():
    readings = made_readings(400, 4, telling=(3, 7, 11, 19, 23))
    fitted = sparse_rule(readings, pools=("max", "mean"), strength=3.0, refit=0.1, limit=3)
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


def _without(readings, feature):
    changed = readings.select(np.arange(len(readings)))
    changed.maximum[:, feature] = 0
    changed.mean[:, feature] = 0
    return changed


def test_a_feature_that_marks_the_negatives_is_read_with_its_sign():
    readings = made_readings(300, 7, telling=())
    readings.maximum[:, 5] = np.where(readings.labels, 0.0, 0.8)
    fitted = best_feature(readings)
    assert fitted.note.startswith("#5 (absent)")
    assert fitted.score(readings)[readings.labels].min() > fitted.score(readings)[~readings.labels].max()
