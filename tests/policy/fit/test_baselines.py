"""The baselines that policies are measured beside."""

import numpy as np

from monitor.policy.fit.baselines import difference_of_means


def test_the_difference_of_means_points_from_negatives_to_positives():
    rng = np.random.default_rng(0)
    y = np.repeat([1, 0], 50)
    means = rng.normal(0, 1, (100, 4)) + y[:, None] * [3, 0, 0, 0]
    scores = difference_of_means(means, y, np.ones(100), means)
    assert scores[y == 1].min() > scores[y == 0].mean()
