from __future__ import annotations

import numpy as np
import pytest

from monitor.dictionary.evaluation.baselines import linear_probe
from monitor.dictionary.evaluation.selection import FittedDetector, best_of, folds
from tests.dictionary.evaluation.labelled_readings import made_readings


def test_the_candidate_that_generalises_is_chosen():
    readings = made_readings(200, 9)

    def remembers(seen):
        known = {tuple(row) for row in seen.residual[seen.labels]}
        return FittedDetector(
            lambda other: np.array([tuple(row) in known for row in other.residual], float), "memory"
        )

    def probe(seen):
        return linear_probe(seen, strength=0.01)

    assert best_of(readings, [remembers, probe]) is probe


def test_folds_keep_groups_whole():
    readings = made_readings(120, 10, groups=12)
    for fit, score in folds(readings):
        assert not set(readings.units[fit]) & set(readings.units[score])
        assert len(fit) + len(score) == 120


def test_one_group_cannot_be_cross_validated():
    readings = made_readings(30, 12, groups=2)
    object.__setattr__(readings, "labels", readings.units == 0)
    with pytest.raises(ValueError, match="more groups"):
        folds(readings)
