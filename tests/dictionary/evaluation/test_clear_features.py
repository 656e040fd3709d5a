from __future__ import annotations

import numpy as np

from monitor.dictionary.evaluation.clear_features import clearest, summarise
from tests.dictionary.evaluation.labelled_readings import RARE, made_benign, made_readings


def test_the_clearest_feature_is_telling_and_silent_on_benign_requests():
    halves = {
        name: (made_readings(200, seed), made_readings(200, seed + 1)) for name, seed in (("a", 0), ("b", 10))
    }
    benign = made_benign(silent=[7])
    summaries = [summarise("power", name, train, test, benign) for name, (train, test) in halves.items()]
    found = clearest(summaries, benign, RARE, count=3, most_per_concept=2)
    assert [clear.feature for clear in found] == [7]  # all others fire on benign requests
    silent = np.zeros_like(benign)
    both = clearest(summaries, silent, RARE, count=3, most_per_concept=2)
    assert {clear.feature for clear in both} == {3, 7}
    assert clearest(summaries, benign, RARE * 100, count=3, most_per_concept=2) == []
    best = found[0]
    assert (best.feature, best.concept, best.fires_benign) == (7, "power", 0.0)
    tests = [test for _, test in halves.values()]
    fires = np.mean([(test.maximum[test.labels][:, 7] >= 0.1).mean() for test in tests])
    assert best.fires_positive == fires
    source = halves[best.best_source][1]
    assert all(source.labels[row] and source.maximum[row, 7] > 0 for row in best.examples)
