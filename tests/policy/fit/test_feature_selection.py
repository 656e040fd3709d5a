"""Features to clamp are chosen by effect and by how rarely benign text uses them."""

import numpy as np
from scipy import sparse

from monitor.policy.fit.feature_selection import choose_clamps, select


def test_clamps_leave_out_what_benign_text_uses():
    effect, concept = np.array([3.0, 2.0, 1.0, 0.5, -1.0]), np.array([0.1, 0.1, 0.1, 0.0001, 0.1])
    benign, maxima = np.array([0.1, 0.01, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    found = choose_clamps(effect, concept, benign, maxima, -0.5)
    assert [c.index for c in found] == [1, 2]
    assert [c.target for c in found] == [-0.5, -0.5]
    assert choose_clamps(effect, concept, benign, np.zeros(5), -0.5) == []


def test_choosing_draws_nothing_from_numpys_global_state():
    """A lock must be the same whenever it is fitted again with the same seed."""
    rng = np.random.default_rng(0)
    positive = np.arange(80) % 2
    readings = sparse.csr_matrix(
        rng.random((80, 30)) * (rng.random((80, 30)) < 0.3) + 0.05 * positive[:, None]
    )
    before = np.random.get_state()[1].copy(), np.random.get_state()[2]
    select(readings, positive, np.arange(80) // 2, limit=8, rounds=9, seed=3)
    np.testing.assert_equal((np.random.get_state()[1], np.random.get_state()[2]), before)
