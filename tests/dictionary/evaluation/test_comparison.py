from __future__ import annotations

import numpy as np
import pytest

from monitor.dictionary.evaluation.comparison import DETECTORS, compare_detectors
from tests.dictionary.evaluation.labelled_readings import made_readings


@pytest.mark.slow
def test_every_detector_finds_what_was_planted_and_says_how():
    result = compare_detectors("power", "made", made_readings(300, 0), made_readings(200, 1), limit=8)
    values = {name: result.of(name).auroc for name in DETECTORS}
    assert all(0.7 < values[name].value < 1 for name in DETECTORS)
    assert all(interval.low < interval.value < interval.high for interval in values.values())
    assert values["sparse rule"].value > values["best feature"].value
    assert result.of("best feature").note.startswith(("#3,", "#7,"))
    assert 2 <= result.of("sparse rule").features <= 8
    assert (result.train_rows, result.test_rows, result.test_groups) == (300, 200, 200)


@pytest.mark.slow
def test_labels_drawn_by_lot_teach_nothing():
    draw = np.random.default_rng(5)
    train, test = made_readings(300, 2, telling=()), made_readings(300, 3, telling=())
    for readings in (train, test):
        object.__setattr__(readings, "labels", draw.random(300) < 0.5)
    result = compare_detectors("nothing", "made", train, test, limit=8)
    for item in result.measured:
        assert 0.35 < item.auroc.value < 0.65
