"""An anomaly rule from end to end: fitted, put to texts that the dictionary never knew, measured without baselines."""

import numpy as np

from monitor.lab.evaluation_results import source_table
from monitor.policy.fit import TextReadings, fit_policy
from monitor.policy.fit.evaluation import SourceTexts, on_sources
from monitor.policy.fit.rule_scorers import locked_scorers
from monitor.policy.schema.policy import PolicyModel
from tests.policy.strange import kinds, write
from tests.policy.synthetic import Synthetic, inputs

POLICY = PolicyModel.model_validate(
    {
        "apiVersion": "monitor/v1",
        "metadata": {
            "name": "odd",
            "title": "Odd",
            "category": "anomaly",
            "severity": "low",
            "description": "Unlike the rest.",
        },
        "rules": [
            {
                "name": name,
                "signal": "residual_norm",
                "pooling": pooling,
                "threshold": {"false_positive_rate": 0.05},
            }
            for name, pooling in (("on-average", "mean"), ("at-once", "max"))
        ],
    }
)


def louder(read, by):
    """The same texts with the signal raised."""
    signals = {name: values + by for name, values in read.signals.items()}
    return TextReadings(read.tokens, read.residuals, signals)


def test_a_rule_without_examples_is_measured_rule_by_rule(tmp_path):
    given = inputs(Synthetic())
    lock = fit_policy(POLICY, (), given)
    assert {rule.asked_rate for rule in lock.rules.values()} == {0.05}
    assert all(rule.benign_rate <= 0.05 for rule in lock.rules.values())
    texts = [f"no {i}" for i in range(1000, 1100)]
    read = Synthetic().read(texts)
    far = SourceTexts("anomaly/far", texts, louder(read, 100.0), np.ones(100, np.intp), texts)
    found = [
        r
        for one in locked_scorers(POLICY, lock, tmp_path)
        for r in on_sources(one, None, [far], read, texts, 0)
    ]
    assert [(r.rule, r.caught, r.fired, set(r.methods)) for r in found] == [
        ("on-average", 1.0, None, {"policy"}),
        ("at-once", 1.0, None, {"policy"}),
    ]
    assert all(r.methods["policy"].recall == 1.0 for r in found)
    table = source_table(found)
    assert "| odd/on-average | anomaly/far | 100 / 0 | – | 100% | 100% / – |" in table
    for one in locked_scorers(POLICY, lock, tmp_path):
        assert one.fired(read).mean() <= 0.15


def test_strange_texts_are_the_same_every_time_and_all_different(tmp_path):
    first, again = kinds(20), kinds(20)
    assert first == again
    assert all(len(set(texts)) >= 19 for texts in first.values())
    write(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(first)
