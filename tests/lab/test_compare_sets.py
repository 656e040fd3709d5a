import numpy as np
import pytest
from scipy.stats import binomtest

from monitor.lab.compare_sets import compare, mcnemar, outcomes
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Phase
from tests.lab.compared import compared, outcome
from tests.policy.conftest import policy, rule
from tests.policy.synthetic import Synthetic


@pytest.fixture
def found():
    return compared()


def test_flips_are_counted_rule_by_rule(found):
    by_rule = {change.rule: change for change in found.result.changes}
    x = by_rule["p/x"]
    assert (x.both, x.only_a, x.only_b, x.neither, x.flips) == (1, (1,), (2,), 1, 2)
    assert (by_rule["p/old"].in_b, by_rule["p/new"].in_a) == (False, False)
    assert found.result.changes[0] is x, "the rule with most flips comes first"
    assert found.result.verdict.only_b == (2,)
    assert (Action.ALERT, Action.ALLOW, 1) in found.result.actions


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"), [(0, 0), (1, 0), (3, 9), (10, 10), (0, 30), (700, 900), (3000, 3100)]
)
def test_mcnemar_is_the_binomial_test(one, other):
    expected = binomtest(one, one + other).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected, rel=1e-6)


def test_outcomes_of_unlike_length_are_refused():
    with pytest.raises(ValueError, match="2 outcomes"):
        compare([outcome()] * 2, [outcome()], set(), set())


def test_outcomes_are_those_of_the_running_rules():
    reader = Synthetic()
    read = reader.read([f"yes {i}" for i in range(20)] + [f"no {i}" for i in range(20)])
    low = policy(rule(features=((4, 1.0), (17, 1.0)), threshold=0.5), name="low")
    high = policy(rule(features=((4, 1.0),), threshold=99.0), name="high")
    found = outcomes(PolicySet((low, high), ""), read, Phase.PROMPT)
    peaks = [float((read.tokens.of(i)[:, [4, 17]].toarray().sum(axis=1)).max()) for i in range(40)]
    assert [("low/r" in o.fired) for o in found] == [bool(np.float32(p) >= 0.5) for p in peaks]
    assert all("high/r" not in o.fired for o in found)
    assert {o.action for o in found} == {Action.ALERT, Action.ALLOW}
