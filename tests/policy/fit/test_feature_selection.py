"""Features to clamp are chosen by effect and by how rarely benign text uses them."""

import numpy as np
from scipy import sparse

from monitor.policy.fit.feature_selection import candidates_of, choose_clamps, ranked


def test_clamps_leave_out_what_benign_text_uses():
    effect, concept = np.array([3.0, 2.0, 1.0, 0.5, -1.0]), np.array([0.1, 0.1, 0.1, 0.0001, 0.1])
    benign, maxima = np.array([0.1, 0.01, 0.0, 0.0, 0.0]), np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    found = choose_clamps(effect, concept, benign, maxima, -0.5)
    assert [c.index for c in found] == [1, 2]
    assert [c.target for c in found] == [-0.5, -0.5]
    assert choose_clamps(effect, concept, benign, np.zeros(5), -0.5) == []


def planted(texts=120):
    """Noise on 40 features; 7 marks positives, 8 says the same, 21 marks other positives, and 30 marks negatives."""
    rng = np.random.default_rng(5)
    y = np.arange(texts) % 2
    x = rng.exponential(0.1, (texts, 40)) * (rng.random((texts, 40)) < 0.2)
    first = (y == 1) & (rng.random(texts) < 0.6)
    x[:, 7] += 0.5 * first
    x[:, 8] = x[:, 7] * 0.9
    x[:, 21] += 0.5 * ((y == 1) & ~first)
    x[:, 30] += 0.5 * (y == 0) * (rng.random(texts) < 0.5)
    x[:, 35:] = 0
    x[0, 36] = x[1, 36] = 5.0
    return sparse.csr_matrix(x), y


def test_planted_features_come_first_and_what_says_the_same_later():
    x, y = planted()
    order = ranked(x, y, np.ones(len(y)), (1, 2, 3, 4)).tolist()
    assert order[0] in (7, 8)
    assert order[1] == 21, "7 and 8 say the same, and either alone would come before 21"
    assert set(order) == {7, 8, 21, 30}


def test_without_negative_weights_only_what_marks_positives_is_taken():
    x, y = planted()
    order = ranked(x, y, np.ones(len(y)), (1, 2, 4), signed=False)
    assert 30 not in order.tolist()
    assert 21 in order[:2].tolist()


def test_features_of_fewer_texts_than_three_are_no_candidates():
    x, y = planted()
    found = candidates_of(x, y)
    assert 36 not in found.tolist()
    assert not set(range(35, 40)) & set(found.tolist())
    assert len(ranked(x, y, np.ones(len(y)), (64,))) <= 35
    assert ranked(sparse.csr_matrix((10, 4)), np.arange(10) % 2, np.ones(10)).tolist() == []
