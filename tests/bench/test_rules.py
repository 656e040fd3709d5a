"""The rules that are measured: as many as asked for, of every kind, and each feature watched once."""

import numpy as np
import pytest

from monitor.bench.rules import PER_RULE, POOLINGS, _readings, _rules, _show, random_policies


@pytest.mark.parametrize(("rules", "features"), [(40, 400), (40, 1000), (25, 100)])
def test_every_feature_is_watched_and_one_rule_in_twenty_has_conditions(rules, features):
    found = random_policies(rules, features)
    made = [rule for policy in found.policies for rule in policy.rules]
    assert len(found.watch.features) == features
    rest = 1 if rules * PER_RULE < features else 0
    assert len(made) == rules + rest
    assert {type(rule.pooling) for rule in made} == {type(pooling) for pooling in POOLINGS}
    combined = [rule for rule in made if rule.when is not None]
    assert len(combined) == rules // 20 + (rest if rules % 20 == 19 else 0)
    assert all(len(rule.features) == PER_RULE for rule in made[:rules])


def test_the_same_seed_gives_the_same_rules():
    def weights(seed):
        return [
            f.weight for p in random_policies(20, 100, seed).policies for r in p.rules for f in r.features
        ]

    assert weights(0) == weights(0) != weights(1)


def test_readings_are_mostly_zero():
    found = _readings(np.random.default_rng(0), 8, 100, 12)
    assert found.shape == (8, 100)
    assert ((found > 0).sum(1) == 12).all()
    assert (_readings(np.random.default_rng(0), 2, 5, 12) > 0).all()


def test_every_step_is_timed_together_and_one_by_one(capsys):
    policies = random_policies(20, 100)
    times = {
        f"together {together}": _rules(policies, 4, 10, 3, together=together) for together in (True, False)
    }
    assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in times.values())
    _show({"rules": [0.001, 0.003, 0.002], "decode step": [0.2, 0.2, 0.2]}, "t")
    said = " ".join(capsys.readouterr().out.split())
    assert "rules │ 2.0 │ 1.5 │ 3.0 │ 1.00%" in said
