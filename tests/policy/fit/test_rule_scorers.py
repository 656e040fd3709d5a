"""Rules put to texts: a share of one is exactly where the rule fires."""

import numpy as np
import pytest

from monitor.policy.files.lock import LockedRule
from monitor.policy.fit.detectors import SignalDetector
from monitor.policy.fit.pooling import RulePooling
from monitor.policy.fit.rule_scorers import LockedRuleScorer
from monitor.policy.schema.policy import Max
from tests.policy.synthetic import Synthetic


@pytest.mark.parametrize("threshold", [-0.7, 0.0, 1.3])
def test_a_share_of_one_is_where_the_rule_fires_whatever_the_sign(threshold):
    rule = {"threshold": threshold, "pooling": {"kind": "max"}, "benign_rate": 0.0, "benign_texts": 1}
    locked = LockedRule.model_validate(rule)
    trial = LockedRuleScorer("p", "r", SignalDetector("residual_norm"), RulePooling(Max()), locked)
    read = Synthetic().read([f"no {i}" for i in range(40)])
    noise = np.random.default_rng(0).normal(0, 1, len(read.residuals))
    read.signals["residual_norm"][:] = threshold - 1.7 + noise
    fired = trial.fired(read)
    assert 0 < fired.sum() < len(fired)
    assert [trial.share(read, i) >= 1 for i in range(len(read))] == [bool(f) for f in fired]
