"""Features to clamp are chosen by effect and by how rarely benign text uses them."""

import numpy as np

from monitor.policy.fit.feature_selection import choose_clamps


def test_clamps_leave_out_what_benign_text_uses():
    effect, concept = np.array([3.0, 2.0, 1.0, 0.5, -1.0]), np.array([0.1, 0.1, 0.1, 0.0001, 0.1])
    benign, maxima = np.array([0.1, 0.01, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    found = choose_clamps(effect, concept, benign, maxima, -0.5)
    assert [c.index for c in found] == [1, 2]
    assert [c.target for c in found] == [-0.5, -0.5]
    assert choose_clamps(effect, concept, benign, np.zeros(5), -0.5) == []
