"""The tokens that a pooled score rests on reproduce the pooled score."""

import numpy as np
import pytest

from monitor.policy.fit.pooling import attention, pooled
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
