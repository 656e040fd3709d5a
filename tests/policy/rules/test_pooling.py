import numpy as np
import pytest

from monitor.policy.rules.pooling import PoolBank
from monitor.policy.schema.policy import Max, TopKMean
from tests.policy.conftest import naive_pooled


@pytest.mark.parametrize("hold", [1, 2, 5])
def test_every_pooling_equals_its_definition(some_poolings, hold):
    rng = np.random.default_rng(hold)
    for length in (1, 2, 9, 60):
        scores = rng.normal(0.3, 0.6, (length, len(some_poolings)))
        bank = PoolBank(some_poolings, [hold] * len(some_poolings))
        got = bank.push(scores)
        for column, pooling in enumerate(some_poolings):
            expected = naive_pooled(scores[:, column].tolist(), pooling, hold)
            np.testing.assert_allclose(got[:, column], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_blocks_of_any_size_pool_like_the_whole(some_poolings, seed):
    rng = np.random.default_rng(seed)
    length = int(rng.integers(2, 80))
    holds = rng.integers(1, 6, len(some_poolings)).tolist()
    scores = rng.normal(0.2, 1.0, (length, len(some_poolings)))
    scores[rng.random(scores.shape) < 0.3] = 0.0
    whole = PoolBank(some_poolings, holds).push(scores)
    bank = PoolBank(some_poolings, holds)
    cuts = np.sort(rng.integers(1, length, int(rng.integers(0, length))))
    pieces = [bank.push(part) for part in np.split(scores, np.unique(cuts))]
    np.testing.assert_array_equal(np.vstack(pieces), whole)


def test_top_k_counts_missing_tokens_as_zero_and_ignores_negative_scores():
    bank = PoolBank([TopKMean(k=4), Max()], [1, 1])
    got = bank.push(np.array([[2.0, 2.0], [-9.0, -9.0], [2.0, 2.0]]))
    assert got[:, 0].tolist() == [0.5, 0.5, 1.0]
    assert got[:, 1].tolist() == [2.0, -9.0, 2.0]
