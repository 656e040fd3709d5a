from __future__ import annotations

import numpy as np

from monitor.dictionary.evaluation.baselines import difference_of_means, word_candidates
from tests.dictionary.evaluation.labelled_readings import made_readings


def test_difference_of_means_is_that():
    readings = made_readings(100, 8)
    direction = readings.residual[readings.labels].astype(float).mean(0) - readings.residual[
        ~readings.labels
    ].astype(float).mean(0)
    assert np.allclose(
        difference_of_means(readings).score(readings), readings.residual @ direction, atol=1e-4
    )


def test_words_may_read_the_answer_alone_where_there_is_one():
    readings = made_readings(50, 11)
    assert len(word_candidates(readings)) == 4
    object.__setattr__(readings, "replies", tuple(text[5:] for text in readings.texts))
    candidates = word_candidates(readings)
    assert len(candidates) == 8
    fitted = [candidate(readings) for candidate in candidates]
    assert {item.note.rsplit(", ", 1)[1] for item in fitted} == {"text", "reply"}
