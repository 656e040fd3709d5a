"""The tokens that a pooled score rests on reproduce the pooled score."""

import numpy as np
import pytest

from monitor.policy.fit.pooling import RulePooling, attention, pooled
from monitor.policy.schema.policy import Ema, Max, Mean, TopKMean
from tests.policy.conftest import naive_pooled


def test_attention_reproduces_every_pooling(some_poolings):
    rng = np.random.default_rng(1)
    for pooling in some_poolings:
        if pooling.kind == "longest_run":
            continue
        scores = rng.exponential(1.0, 30)
        expected = max(naive_pooled(scores.tolist(), pooling, 1))
        counted = scores - getattr(pooling, "allowance", 0.0)
        assert attention(scores, pooling, 1) @ counted == pytest.approx(expected)
        assert pooled(scores, pooling, 1) == pytest.approx(expected)


@pytest.mark.parametrize("hold", [1, 3])
@pytest.mark.parametrize("pooling", [Max(), Mean(min_tokens=4), TopKMean(k=3), Ema(half_life=5)])
def test_many_texts_are_pooled_as_each_alone(pooling, hold):
    rng = np.random.default_rng(6)
    texts = [rng.normal(0, 1, length) for length in (7, 1, 0, 30, 3, 12)]
    how = RulePooling(pooling, hold)
    expected = [pooled(scores, pooling, hold) for scores in texts]
    np.testing.assert_allclose(how.score(texts), expected, atol=1e-12)
    alone = np.concatenate([attention(scores, pooling, hold) for scores in texts])
    np.testing.assert_allclose(how.attentions(texts), alone, atol=1e-12)
    assert how.score([]).shape == how.attentions([]).shape == (0,)
