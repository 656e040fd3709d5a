import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest

from monitor.cli.policy.compare import as_record, show_comparison
from monitor.lab.compare_sets import ComparedSets, SetOutcome, compare, mcnemar, outcomes
from monitor.policy.policyset import PolicySet
from monitor.records import Action, Phase
from tests.policy.conftest import policy, rule
from tests.policy.synthetic import Synthetic

TEXTS = ["plain", "<b>bold</b>\x1b[31m", "third", "fourth"]


def outcome(*fired, action=Action.ALLOW):
    return SetOutcome(frozenset(fired), action)


@pytest.fixture
def found():
    a = [outcome("p/x"), outcome("p/x", action=Action.ALERT), outcome(), outcome("p/old")]
    b = [outcome("p/x"), outcome(), outcome("p/x", "p/new", action=Action.BLOCK), outcome()]
    result = compare(a, b, {"p/x", "p/old"}, {"p/x", "p/new"})
    return ComparedSets(TEXTS, ["s"] * 4, ("sha256:a", "sha256:b"), result)


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


def test_texts_are_shown_only_when_asked_and_cannot_command_the_terminal(found):
    console = Console(record=True, width=120, force_terminal=False, markup=False)
    show_comparison(console, found, 0)
    plain = console.export_text()
    assert "bold" not in plain
    assert "p/x" in plain
    show_comparison(console, found, 5)
    shown = console.export_text()
    assert "<b>bold</b>\\x1b[31m" in shown
    assert "third" in shown


def test_json_says_the_same(found):
    record = json.loads(as_record(found, 0))
    x = next(r for r in record["rules"] if r["rule"] == "p/x")
    assert (x["only_a"], x["only_b"]["indices"], x["p_value"]) == ({"count": 1, "indices": [1]}, [2], 1.0)
    assert next(r for r in record["rules"] if r["rule"] == "p/new")["p_value"] is None
    assert json.loads(as_record(found, 1))["rules"][0]["only_a"]["texts"][0]["text"] == TEXTS[1]


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
