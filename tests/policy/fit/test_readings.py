"""Readings of many texts, against plain arrays."""

import numpy as np
import pytest
from scipy import sparse

from monitor.policy.fit.readings import TextReadings, TokenReadings, join, join_texts

LENGTHS = (3, 0, 2, 4)
STARTS = np.array([0, 3, 3, 5, 9])


@pytest.fixture
def dense():
    draw = np.random.default_rng(0)
    return draw.random((9, 5)) * (draw.random((9, 5)) < 0.4)


@pytest.fixture
def tokens(dense):
    return TokenReadings(sparse.csr_matrix(dense), STARTS)


@pytest.fixture
def texts(tokens):
    residuals = np.random.default_rng(1).normal(size=(9, 3)).astype(np.float32)
    return TextReadings(tokens, residuals, {"residual_norm": np.arange(9.0)})


def test_one_text_and_some_texts_in_any_order(tokens, dense):
    assert len(tokens) == 4
    np.testing.assert_array_equal(tokens.of(2).toarray(), dense[3:5])
    taken = tokens.take([3, 1, 0, 3])
    assert taken.starts.tolist() == [0, 4, 4, 7, 11]
    np.testing.assert_array_equal(taken.matrix.toarray(), np.concatenate([dense[5:], dense[:3], dense[5:]]))
    none = tokens.take([])
    assert (len(none), none.matrix.shape) == (0, (0, 5))


def test_columns_means_and_density(tokens, dense):
    columns = tokens.columns(np.array([4, 1]))
    assert [len(rows) for rows in columns] == list(LENGTHS)
    np.testing.assert_array_equal(columns[3], dense[5:][:, [4, 1]])
    expected = [dense[:3].mean(0), np.zeros(5), dense[3:5].mean(0), dense[5:].mean(0)]
    np.testing.assert_allclose(tokens.means().toarray(), expected)
    np.testing.assert_allclose(tokens.density(), (dense > 0).mean(0))


def test_joined_parts_hold_all_texts_in_order(tokens, dense):
    whole = join([tokens.take([0, 1]), tokens.take([2, 3])])
    np.testing.assert_array_equal(whole.matrix.toarray(), dense)
    assert whole.starts.tolist() == STARTS.tolist()


def test_residuals_and_signals_go_with_their_texts(texts):
    assert texts.lengths.tolist() == list(LENGTHS)
    np.testing.assert_array_equal(texts.residual(2), texts.residuals[3:5])
    assert [part.tolist() for part in texts.signal("residual_norm", np.array([2, 1]))] == [[3.0, 4.0], []]
    taken = texts.take(np.array([3, 2]))
    np.testing.assert_array_equal(taken.residuals, texts.residuals[[5, 6, 7, 8, 3, 4]])
    assert taken.signals["residual_norm"].tolist() == [5, 6, 7, 8, 3, 4]
    whole = join_texts([texts.take(np.array([0, 1])), texts.take(np.array([2, 3]))])
    np.testing.assert_array_equal(whole.residuals, texts.residuals)
    assert whole.signals["residual_norm"].tolist() == texts.signals["residual_norm"].tolist()


def test_mean_residuals(texts):
    expected = [
        texts.residuals[:3].mean(0),
        np.zeros(3),
        texts.residuals[3:5].mean(0),
        texts.residuals[5:].mean(0),
    ]
    np.testing.assert_allclose(texts.means, expected, rtol=1e-6)
    assert len(TextReadings.empty()) == 0
